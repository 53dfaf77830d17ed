"""Samples per second of the training data, beside MMSegmentation's and torchvision's pipelines.

    pip install --target peers --no-deps mmsegmentation==1.2.2 mmcv-lite mmengine-lite addict yapf termcolor \
        prettytable platformdirs wcwidth ftfy opencv-python-headless
    PYTHONPATH=peers python benchmarks/data_pipeline.py --DATA ../shared/data

All read the same files in one process and one thread, and do the same: load image and label, scale by 0.5 to
2, cut (ours and MMSegmentation's so that no class has more than three quarters), flip, change the colours
(photometric distortion as in SSD). They take turns, round by round; a ratio is the median of the rounds'
ratios. Time is the process's own on the processor, which other programs disturb less; the files are in the
system's cache. We keep small samples in memory after the first epoch, which has a row of its own. The large
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
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.common import RESULTS, add_row, surroundings  # noqa: E402
from utils.data.augment_level import parse_level  # noqa: E402
from utils.data.dataset import Key, SegmentationDataset  # noqa: E402
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

# One sample of a number; all pipelines take the same image for the same number.
Draw = Callable[[int], object]
Pair = tuple[Path, Path]


def ours(samples: Sequence[Sample], crop: tuple[int, int], level: str = SAME, *, keep: bool = True) -> Draw:
    """Return our training samples; without `keep` as in a first epoch, when no small one is in memory."""
    augmentation = Augmentation(crop, parse_level(level), "h", RANGES)
    dataset = SegmentationDataset(samples, CLASSES, augmentation)
    if not keep:
        dataset._kept._room = 0
    return lambda number: dataset[Key(0, number, number % len(samples))]


def whole_sample(image: Path, label: Path) -> Sample:
    """Return a pair of files as a sample."""
    info = raster_info(image)
    return Sample(image.stem, image, label, info.height, info.width)


def mmsegmentation(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> Draw:
    """Return MMSegmentation's own training pipeline."""
    import cv2
    import mmcv

    # What is wanted are the transforms; the networks' compiled operators only have to be importable.
    operators = types.ModuleType("mmcv.ops")
    operators.__getattr__ = _stand_in
    sys.modules.setdefault("mmcv.ops", operators)
    mmcv.__version__ = "2.1.0"  # mmsegmentation 1.2.2 refuses 2.2, which has the same transforms
    cv2.setNumThreads(1)
    import mmseg.datasets.transforms  # noqa: F401 - registers them
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance(f"data {size}", scope_name="mmseg")
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": size[::-1], "ratio_range": (0.5, 2.0), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    pipeline = Compose(steps)

    def draw(number: int) -> object:
        image, label = pairs[number % len(pairs)]
        paths = {"img_path": str(image), "seg_map_path": str(label)}
        return pipeline({**paths, "reduce_zero_label": False, "seg_fields": []})

    return draw


def _stand_in(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def torchvision_v2(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> Draw:
    """Return the same of torchvision's transforms; it knows no limit of a class's share."""
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    pipeline = v2.Compose(
        [
            v2.ScaleJitter(size, (0.5, 2.0), antialias=False),
            v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
            v2.RandomHorizontalFlip(),
            v2.RandomPhotometricDistort(),
        ]
    )

    def draw(number: int) -> object:
        image, label = (io.decode_image(io.read_file(str(path))) for path in pairs[number % len(pairs)])
        return pipeline(tv_tensors.Image(image), tv_tensors.Mask(label))

    return draw


def opencv_decoding(pairs: Sequence[Pair]) -> Draw:
    """Return the decoding of image and label alone, by OpenCV."""
    import cv2

    cv2.setNumThreads(1)

    def draw(number: int) -> object:
        image, label = pairs[number % len(pairs)]
        return cv2.imread(str(image)), cv2.imread(str(label), cv2.IMREAD_UNCHANGED)

    return draw


def our_decoding(pairs: Sequence[Pair]) -> Draw:
    """Return the decoding of whole image and label alone, by us."""
    return lambda number: (
        read_image(pairs[number % len(pairs)][0]),
        read_label(pairs[number % len(pairs)][1]),
    )


def beside_peers(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> dict[str, Callable]:
    """Return {name: () -> draw} of the pipelines to compare."""
    return {
        "ours": lambda: ours([whole_sample(*pair) for pair in pairs], crop),
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
        "ours": lambda: ours([whole], (TILE, TILE), level),
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


def measure(makers: dict[str, Callable], count: int, rounds: int) -> dict[str, list[float]]:
    """Return {name: seconds per sample in each round}; what is not installed is left out."""
    draws = {}
    for name, make in makers.items():
        try:
            draws[name] = make()
            draws[name](0)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for turn in range(-1, rounds):  # the first one warms up
        for name, draw in draws.items():
            started = time.process_time()
            for number in range(count):
                draw(count * (turn + 1) + number)
            if turn >= 0:
                seconds[name].append((time.process_time() - started) / count)
    return seconds


def report(case: str, seconds: dict[str, list[float]], write: bool) -> None:
    """Print the rows of a case and add them to the results."""
    for name, times in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(times, seconds["ours"], strict=True))
        rate = 1 / statistics.median(times)
        print(f"| {case} | {name} | {1000 / rate:.2f} | {rate:.1f} | {ratio:.2f} |")
        if write:
            row = {"case": case, "pipeline": name, "ms_per_sample": f"{1000 / rate:.3f}"}
            row |= {"samples_per_second": f"{rate:.1f}", "ours_times_as_fast": f"{ratio:.2f}"}
            row |= {"rounds": len(times), **surroundings(torch.device("cpu")), **versions()}
            add_row(RESULTS / "data_pipeline.csv", row, ("case", "pipeline"))


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
        print("| case | pipeline | ms per sample | samples per second | ours is times as fast |")
        print("|---|---|---|---|---|")
        for case in cases:
            count = options.COUNT * (1 if case in ("jpeg", "png") else 10)
            if case == "camvid":
                # All of them are read in the first turn, which warms up.
                pairs = camvid(options.DATA)[:count]
                makers = beside_peers(pairs, (180, 240), (180, 240))
                samples = [whole_sample(*pair) for pair in pairs]
                makers["ours, first epoch"] = partial(ours, samples, (180, 240), keep=False)
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
