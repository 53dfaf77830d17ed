"""Samples per second of the training data, beside MMSegmentation's and torchvision's pipelines.

    pip install --target peers --no-deps mmsegmentation==1.2.2 mmcv-lite mmengine-lite addict yapf termcolor \
        prettytable platformdirs wcwidth ftfy opencv-python-headless
    PYTHONPATH=peers python benchmarks/data_pipeline.py --DATA ../shared/data

All read the same files in one process and one thread, and do the same: load image and label, scale by 0.5 to
2, cut (ours and MMSegmentation's so that no class has more than three quarters), flip, change the colours
(photometric distortion as in SSD). They take turns, round by round; a ratio is the median of the rounds'
ratios. What counts is the process's own time on the processor, which other programs disturb less; the files
are in the system's cache. Ours has three rows: a first epoch, in which whole images are decoded and kept (a
new memory for each pass), the later ones, and all of a run that keeps nothing (`--KEEP_DECODED 0`). The large
pictures are CamVid's, enlarged, with noise that gives their PNGs a street scene's size (2.2 to 2.6 MB).
A peer that is not installed is left out, with the reason.

Added to benchmarks/results/data_pipeline.csv and printed as a table.
"""

import argparse
import contextlib
import importlib.metadata
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.common import RESULTS, add_row, surroundings  # noqa: E402
from benchmarks.data_peers import Draw, Pair, mmsegmentation, opencv_decoding, torchvision_v2  # noqa: E402
from utils.data.augment_level import parse_level  # noqa: E402
from utils.data.dataset import Key, SegmentationDataset  # noqa: E402
from utils.data.kept import KeptSamples  # noqa: E402
from utils.data.labels import Classes  # noqa: E402
from utils.data.photometric import BandRanges  # noqa: E402
from utils.data.raster import Window, raster_info, read_image, read_label  # noqa: E402
from utils.data.samples import Sample  # noqa: E402
from utils.data.transforms import Augmentation  # noqa: E402

CLASSES = Classes(
    tuple(f"class {i}" for i in range(19)),
    tuple((i, i, i) for i in range(19)),
    {i: i for i in range(19)},
    (255,),
)
RANGES = BandRanges((100.0,) * 3, (60.0,) * 3, (0, 1, 2))
SAME = "light,cat_max_ratio=0.75,color=1"
LARGE_SIZE, LARGE_CROP = (1024, 2048), (512, 1024)
NOISE = 2.0  # standard deviation
TILE = 512
ROOM = 2**30  # bytes of decoded images
EPOCHS = FIRST, LATER, NOTHING_KEPT = "ours, first epoch", "ours, later epochs", "ours, nothing kept"


class Times(NamedTuple):
    """Seconds per sample, of the processor and by the clock."""

    processor: float
    clock: float


def ours(
    samples: Sequence[Sample], crop: tuple[int, int], level: str = SAME, *, epochs: str = NOTHING_KEPT
) -> Draw:
    """Return our training samples as in one of `EPOCHS`."""
    dataset = SegmentationDataset(samples, CLASSES, Augmentation(crop, parse_level(level), "h", RANGES))

    def draw(number: int) -> object:
        index = number % len(samples)
        if epochs != NOTHING_KEPT and (dataset.kept is None or (epochs == FIRST and index == 0)):
            dataset.kept = KeptSamples(samples, CLASSES, 3, "uint8", ROOM)
        return dataset[Key(0, number, index)]

    return draw


def whole_sample(image: Path, label: Path) -> Sample:
    """Return a pair of files as a sample."""
    info = raster_info(image)
    return Sample(image.stem, image, label, info.height, info.width)


def our_decoding(pairs: Sequence[Pair]) -> Draw:
    """Return the decoding of whole image and label alone, by us."""
    return lambda number: (
        read_image(pairs[number % len(pairs)][0]),
        read_label(pairs[number % len(pairs)][1]),
    )


def beside_peers(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> dict[str, Callable]:
    """Return {name: () -> draw} of the pipelines to compare."""
    samples = [whole_sample(*pair) for pair in pairs]
    return {epochs: partial(ours, samples, crop, epochs=epochs) for epochs in EPOCHS} | {
        "MMSegmentation": partial(mmsegmentation, pairs, size, crop),
        "torchvision v2": partial(torchvision_v2, pairs, size, crop),
    }


def decoding(pairs: Sequence[Pair]) -> dict[str, Callable]:
    """Return {name: () -> draw} of decoding alone."""
    return {
        "decoding alone, ours": partial(our_decoding, pairs),
        "decoding alone, OpenCV": partial(opencv_decoding, pairs),
    }


def camvid(data: Path) -> list[Pair]:
    """Return CamVid's training pairs, 240 x 180."""
    folder = data / "camvid-small"
    stems = (folder / "annotations" / "train.txt").read_text(encoding="utf-8").split()
    return [(folder / "images" / f"{stem}.jpg", folder / "labels" / f"{stem}.png") for stem in stems]


def large_pairs(data: Path, folder: Path) -> dict[str, list[Pair]]:
    """Write street scenes of 2048 x 1024 as PNG and JPEG and return the pairs of both."""
    rng, size = np.random.default_rng(0), LARGE_SIZE[::-1]
    pairs: dict[str, list[Pair]] = {".jpg": [], ".png": []}
    for path in sorted((data / "formats" / "cityscapes" / "leftImg8bit").rglob("*.png")):
        small = Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        noisy = np.asarray(small) + rng.normal(0, NOISE, (*LARGE_SIZE, 1))
        picture = Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8))
        place = str(path).replace("leftImg8bit/", "gtFine/", 1)
        label = folder / f"{path.stem}_label.png"
        ids = Image.open(place.replace("_leftImg8bit.png", "_gtFine_labelTrainIds.png"))
        ids.resize(size, Image.Resampling.NEAREST).save(label)
        for suffix, options in ((".jpg", {"quality": 90}), (".png", {})):
            image = folder / f"{path.stem}{suffix}"
            picture.save(image, **options)
            pairs[suffix].append((image, label))
    return pairs


def scene_and_tiles(data: Path, folder: Path) -> dict[str, Callable]:
    """Return windows of the scene beside tiles cut from it, read and changed alike."""
    scene = tuple(next((data / "scene-bluemarble" / kind).glob("*.tif")) for kind in ("images", "labels"))
    whole = whole_sample(*scene)
    tiles = []
    for top in range(0, whole.height - TILE + 1, TILE):
        for left in range(0, whole.width - TILE + 1, TILE):
            pair = [_cut(path, Window(top, left, TILE, TILE), folder) for path in scene]
            tiles.append(whole_sample(*pair))
    level = "standard,scale=1"
    draw_tile = ours(tiles, (TILE, TILE), level)
    order = np.random.default_rng(0).integers(len(tiles), size=4096).tolist()
    return {
        NOTHING_KEPT: lambda: ours([whole], (TILE, TILE), level),
        "tiles cut before": lambda: lambda number: draw_tile(order[number % len(order)]),
    }


def _cut(path: Path, window: Window, folder: Path) -> Path:
    """Write a window as a file of its own, stored as the scene is."""
    target = folder / f"{path.parent.name}_{window.top}_{window.left}.tif"
    with rasterio.open(path) as source:
        part = rasterio.windows.Window(window.left, window.top, window.width, window.height)
        profile = {**source.profile, "height": window.height, "width": window.width}
        profile["transform"] = source.window_transform(part)
        with rasterio.open(target, "w", **profile) as file:
            file.write(source.read(window=part))
    return target


def measure(makers: dict[str, Callable], count: int, rounds: int) -> dict[str, list[Times]]:
    """Return {name: times per sample in each round}; what is not installed is left out."""
    draws = {}
    for name, make in makers.items():
        try:
            draws[name] = make()
            draws[name](0)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    times: dict[str, list[Times]] = {name: [] for name in draws}
    for turn in range(-1, rounds):  # the first one warms up
        for name, draw in draws.items():
            before = time.process_time(), time.perf_counter()
            for number in range(count):
                draw(count * (turn + 1) + number)
            after = time.process_time(), time.perf_counter()
            if turn >= 0:
                times[name].append(Times(*((b - a) / count for a, b in zip(before, after, strict=True))))
    return times


def report(case: str, times: dict[str, list[Times]], write: bool) -> None:
    """Print the rows of a case and add them to the results."""
    for name, own in times.items():
        processor, clock = (statistics.median(values) for values in zip(*own, strict=True))
        row = {"case": case, "pipeline": name, "ms_per_sample": f"{1000 * processor:.3f}"}
        row |= {"ms_by_the_clock": f"{1000 * clock:.3f}", "samples_per_second": f"{1 / processor:.1f}"}
        for epochs in EPOCHS:
            rounds = zip(own, times.get(epochs, ()), strict=epochs in times)
            ratios = [other.processor / ours.processor for other, ours in rounds]
            row[_column(epochs)] = f"{statistics.median(ratios):.2f}" if ratios else ""
        print("| " + " | ".join(row.values()) + " |")
        if write:
            row |= {"rounds": len(own), **surroundings(torch.device("cpu")), **versions()}
            add_row(RESULTS / "data_pipeline.csv", row, ("case", "pipeline"))


def _column(epochs: str) -> str:
    return f"{epochs.replace(', ', '_').replace(' ', '_')}_times_as_fast"


def versions() -> dict[str, str]:
    """Return the versions of what decodes and of the peers."""
    found = {}
    for name in ("pillow", "rasterio", "mmsegmentation", "opencv-python-headless", "torchvision"):
        found[name] = ""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> None:
    """Measure the cases that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--DATA", type=Path, required=True, help="folder with camvid-small, formats, scene-bluemarble"
    )
    parser.add_argument("--CASES", default="camvid,jpeg,png,scene", help="which of camvid,jpeg,png,scene")
    parser.add_argument("--ROUNDS", type=int, default=9, help="times that each pipeline has its turn")
    parser.add_argument(
        "--COUNT", type=int, default=20, help="large samples per turn; ten times as many small ones"
    )
    parser.add_argument("--DRY", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = options.CASES.split(",")
        large = large_pairs(options.DATA, folder) if {"jpeg", "png"} & set(cases) else {}
        columns = ["case", "pipeline", "ms per sample", "ms by the clock", "samples per second"]
        columns += [_column(epochs).replace("_", " ") for epochs in EPOCHS]
        print("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), sep="\n")
        for case in cases:
            count = options.COUNT * (1 if case in ("jpeg", "png") else 10)
            if case == "camvid":
                # All of them are read in each turn.
                pairs = camvid(options.DATA)[:count]
                makers = beside_peers(pairs, (180, 240), (180, 240))
            elif case == "scene":
                makers = scene_and_tiles(options.DATA, folder)
            else:
                pairs = large[".jpg" if case == "jpeg" else ".png"]
                makers = beside_peers(pairs, LARGE_SIZE, LARGE_CROP) | decoding(pairs)
            report(NAMES[case], measure(makers, count, options.ROUNDS), not options.DRY)


NAMES = {
    "camvid": "240x180 JPEG",
    "jpeg": "2048x1024 JPEG, crop 1024x512",
    "png": "2048x1024 PNG, crop 1024x512",
    "scene": "512-pixel windows of a 5400x2700 GeoTIFF",
}

if __name__ == "__main__":
    main()
