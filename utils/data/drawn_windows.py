"""Random windows of a large set of images: what is read where reading all of it would take too long."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.data.raster import Window
from utils.data.raster_files import is_npy, open_raster
from utils.data.samples import Sample, block_sample, intersection
from utils.data.threads import in_threads

# Images of fewer pixels are read whole.
_SMALL = 2**20
# Pixels of a window: small windows are spread wider, large ones cost less per pixel.
_WINDOW = 2**16
# PNG and JPEG are decoded from the top down to the window, so that more of them is taken.
_SEQUENTIAL_WINDOW = 2**18
_LARGEST_WINDOW = 2**22
_DRAWS = 256


def draw_windows(samples: Sequence[Sample], pixels: int, seed: int, workers: int | None) -> list[Sample]:
    """Return random parts of the samples, in random order, no one twice, of at most `pixels` in all.

    Each pixel of the set has about the same chance: an image is drawn by its size, in it a place; what is
    read there are whole blocks of the file.

    Args:
        samples: Of more pixels than are asked for.
        pixels: Limit; a single part is returned whatever its size.
        seed: Start of the draws.
        workers: Threads that look into the files.
    """
    ends = np.cumsum([sample.height * sample.width for sample in samples])
    rng = np.random.default_rng(seed)
    drawn: dict[tuple, Sample] = {}
    left = pixels
    while True:
        for key, part in _draw(samples, ends, rng, workers):
            if key in drawn:
                continue
            area = part.height * part.width
            if drawn and area > left:
                return list(drawn.values())
            drawn[key] = part
            left -= area


def _draw(
    samples: Sequence[Sample], ends: np.ndarray, rng: np.random.Generator, workers: int | None
) -> Iterator[tuple[tuple, Sample]]:
    """Yield some parts, each with what tells it from others."""
    places = rng.integers(ends[-1], size=_DRAWS)
    indices = np.searchsorted(ends, places, side="right").tolist()
    names = {samples[index].image for index in indices if _area(samples[index]) > _SMALL}
    paths = sorted(names, key=str)
    blocks = dict(zip(paths, in_threads(_window_size, paths, workers, None), strict=True))
    for index, place in zip(indices, places.tolist(), strict=True):
        sample = samples[index]
        if sample.image not in blocks:
            yield (index,), sample
            continue
        row, column = divmod(place - (int(ends[index]) - _area(sample)), sample.width)
        height, width = blocks[sample.image]
        top, left = (sample.part.top + row) // height * height, (sample.part.left + column) // width * width
        window = intersection(Window(top, left, height, width), sample.part)
        yield (index, *window), block_sample(sample, window)


def _area(sample: Sample) -> int:
    return sample.height * sample.width


def _window_size(path: Path) -> tuple[int, int]:
    """Return the size of the windows to read of a file: whole blocks, where they are not too large."""
    if is_npy(path):
        return (256, 256)
    with open_raster(path) as pages:
        first = pages[0]
        (rows, columns), full = first.block_shapes[0], first.width
        wanted = _SEQUENTIAL_WINDOW if first.driver in ("PNG", "JPEG") else _WINDOW
    side = round(wanted**0.5)
    width = full if columns >= full else -(-side // columns) * columns
    height = max(1, wanted // width // rows) * rows
    return min(height, max(1, _LARGEST_WINDOW // width)), width
