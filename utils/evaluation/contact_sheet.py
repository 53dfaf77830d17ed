"""A contact sheet of a data set: some images of each split, their classes laid over them below."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nets.errors import UserError
from utils.data.bands import rgb_bands
from utils.data.labels import Classes
from utils.data.layout import DatasetInfo
from utils.data.masks import read_mask
from utils.data.raster import Window
from utils.data.samples import LARGE, Sample
from utils.data.source import read_source
from utils.evaluation.batches import MARK, draw_panels, mark_ignored
from utils.evaluation.overlays import ignored_pixels, overlay, preview, shown_classes
from utils.evaluation.plots import legible

SIDE = 256  # pixels of the longer side of a picture
_MOST = 18  # images on a sheet
_LONGEST_NAME = 26
# Side of the window that is shown of a scene, pixels.
_WINDOW = 1024


def draw_contact_sheet(data: DatasetInfo, path: Path, title: str = "") -> None:
    """Write a PNG of some images of each split; those come first that show classes not shown yet.

    Of a scene a window around labels is shown. Ignored pixels are striped in magenta; values that are no
    class count as ignored. Images that cannot be read are left out.
    """
    share = max(1, _MOST // max(1, len(data.splits)))
    rgb = rgb_bands(data.bands, data.band_names)
    panels, shown, striped = [], np.zeros(data.classes.num_classes, bool), False
    for split, samples in data.splits.items():
        for sample in choose(samples, share):
            try:
                picture, mask = _thumbnail(sample, _tolerant(data), rgb)
            except UserError:
                continue
            shown[shown_classes(mask)] = True
            striped |= bool(ignored_pixels(mask).any())
            marked = mark_ignored(overlay(picture, mask, data.classes.colors), mask)
            name = (
                sample.name if len(sample.name) <= _LONGEST_NAME else f"…{sample.name[1 - _LONGEST_NAME :]}"
            )
            panels.append((f"{split} {name}", picture, marked))
    if not panels:
        return
    names = legible(data.classes.names)
    legend = [(names[index], data.classes.colors[index]) for index in np.flatnonzero(shown)]
    legend += [("ignored", MARK)] if striped else []
    titles = legible([name for name, _, _ in panels], longest=40)
    size = tuple(max(picture.shape[axis] for _, picture, _ in panels) for axis in (0, 1))
    panels = [
        (name, framed(picture, size), framed(marked, size))
        for name, (_, picture, marked) in zip(titles, panels, strict=True)
    ]
    draw_panels(panels, legend, path, legible([title], longest=120)[0] if title else "")


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return samples that show as many classes as possible, then others evenly over the list."""
    chosen: list[Sample] = []
    missing = {index for sample in samples for index, _ in sample.class_counts}
    while missing and len(chosen) < count:
        best = max(samples, key=lambda sample: len(missing & {index for index, _ in sample.class_counts}))
        chosen.append(best)
        missing -= {index for index, _ in best.class_counts}
    taken = {id(sample) for sample in chosen}
    rest = [sample for sample in samples if id(sample) not in taken]
    more = min(count - len(chosen), len(rest))
    return [*chosen, *(rest[index * len(rest) // more] for index in range(more))]


def _tolerant(data: DatasetInfo) -> Classes:
    """Return the classes with every value that is none of them ignored."""
    known: Mapping[int, int] = data.classes.table
    rest = [value for value in data.value_pixels if value not in known]
    return replace(data.classes, ignored=tuple({*data.classes.ignored, *rest}))


def _thumbnail(sample: Sample, classes: Classes, rgb: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture (h, w, 3) and the mask of a sample, shrunk to `SIDE` pixels."""
    window = None
    if sample.height * sample.width > LARGE:
        cell = sample.cells[len(sample.cells) // 2] if sample.cells else sample.part
        height, width = min(_WINDOW, sample.height), min(_WINDOW, sample.width)
        top = int(np.clip(cell.top + cell.height // 2 - height // 2, 0, sample.height - height))
        left = int(np.clip(cell.left + cell.width // 2 - width // 2, 0, sample.width - width))
        window = Window(top, left, height, width)
    image, valid = read_source(sample.source, sample.inside(window))
    mask = read_mask(sample, classes, window, valid)
    picture = preview(image, valid, rgb)
    height, width = mask.shape[-2:]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in ((size[1], height), (size[0], width))
    )
    return np.asarray(Image.fromarray(picture).resize(size, way)), mask[..., rows[:, None], columns]


def framed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Put a picture in the upper left corner of a white one."""
    frame = np.full((*size, 3), 255, dtype=np.uint8)
    frame[: picture.shape[0], : picture.shape[1]] = picture
    return frame
