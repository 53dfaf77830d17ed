"""Are there seams? How much probabilities change across the borders of windows, and between other pixels.

    python benchmarks/seams.py --SCENE data/scene-bluemarble

A UNet with ResNet-18 is trained on crops of the scene for a minute, then every window is predicted once
and blended in each way. A border is where a window begins or ceases to count: for blending `none` that is in
the middle of an overlap, else at a window's ends. Written are the mean change of the probabilities from one
pixel to the next (summed over the classes) across borders and elsewhere, and their ratio; and since a scene
is not the same everywhere, the same for every way of blending at the borders of `none` too. Rows are added to
benchmarks/results/seams.csv.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from nets.registry import create_model  # noqa: E402
from nets.segmentation_model import SegmentationNetwork  # noqa: E402
from utils.data.raster import read_image, read_label  # noqa: E402
from utils.data.window import Window, slices  # noqa: E402
from utils.inference.blending import axis_weights  # noqa: E402
from utils.inference.whole import predictor  # noqa: E402
from utils.inference.windows import WindowGrid, predict_blocks, to_images  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "seams.csv"
WAYS = ("gaussian", "cosine", "flat", "none")
COLUMNS = (
    "scene",
    "network",
    "steps",
    "window",
    "overlap",
    "blend",
    "borders_of",
    "across",
    "elsewhere",
    "ratio",
)
CROP, BATCH = 128, 4


def borders(starts: Sequence[int], size: int, length: int, blend: str) -> np.ndarray:
    """Return along one axis each position p for which a border lies between the pixels p and p + 1."""
    counts = np.zeros((len(starts), length), bool)
    for row, start, weights in zip(counts, starts, axis_weights(starts, size, length, blend), strict=True):
        row[start : start + size] = weights > 0
    return np.flatnonzero((counts[:, 1:] != counts[:, :-1]).any(0))


def changes(probabilities: np.ndarray, grid: WindowGrid, blend: str) -> tuple[float, float]:
    """Return the mean change of probabilities (K, H, W) across borders, and elsewhere.

    A change is that from a pixel to the one below or to the right, as a sum over the classes; the borders are
    those of a way of blending.
    """
    sums, counts = np.zeros(2), np.zeros(2)
    for axis, starts, size in ((1, grid.tops, grid.height), (2, grid.lefts, grid.width)):
        length = probabilities.shape[axis]
        steps = sum(np.abs(np.diff(plane, axis=axis - 1)) for plane in probabilities)
        lines = steps.mean(axis=2 - axis, dtype=np.float64)
        across = np.zeros(length - 1, bool)
        across[borders(starts, size, length, blend)] = True
        for index, chosen in enumerate((across, ~across)):
            weight = probabilities.shape[3 - axis]
            sums[index] += lines[chosen].sum() * weight
            counts[index] += chosen.sum() * weight
    return tuple(sums / counts)


def blended(
    windows: Sequence[Tensor], image: np.ndarray, valid: np.ndarray, grid: WindowGrid, blend: str
) -> np.ndarray:
    """Return the probabilities (K, H, W) of a scene from those of its windows, (1, K, h, w) row by row."""

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = slices(window)
        return image[:, rows, columns], valid[rows, columns]

    ready = iter(windows)
    result = np.empty((windows[0].shape[1], *valid.shape), np.float32)
    ways = {"batch_size": 1, "blend": blend, "threads": 0}
    for block in predict_blocks(lambda _: next(ready).clone(), read, valid.shape, grid, **ways):
        height, width = block.valid.shape
        rows, columns = slices(Window(block.top, block.left, height, width))
        result[:, rows, columns] = block.probabilities.numpy()
    return result


def trained(image: np.ndarray, mask: np.ndarray, steps: int, report: int = 20) -> SegmentationNetwork:
    """Return a UNet trained by `steps` batches of crops of a scene (C, H, W) with classes (H, W)."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = create_model("unet", bands=len(image), num_classes=int(mask.max()) + 1, backbone="resnet18")
    network.mean.copy_(torch.tensor(image.mean((1, 2))))
    network.std.copy_(torch.tensor(image.std((1, 2))))
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-3)
    for step in range(steps):
        tops = rng.integers(0, mask.shape[0] - CROP, BATCH)
        lefts = rng.integers(0, mask.shape[1] - CROP, BATCH)
        parts = [slices(Window(top, left, CROP, CROP)) for top, left in zip(tops, lefts, strict=True)]
        crops = torch.from_numpy(np.stack([image[:, rows, columns] for rows, columns in parts])).float()
        truth = torch.from_numpy(np.stack([mask[rows, columns] for rows, columns in parts])).long()
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        loss = F.cross_entropy(network(crops)["logits"], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % report == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return network.eval()


def measure(options: argparse.Namespace) -> Iterator[list]:
    """Train, predict every window once, and yield a row for each way of blending and place."""
    image, valid = read_image(options.SCENE / "images" / "world.tif")
    mask, _ = read_label(options.SCENE / "labels" / "world.tif")
    predict = predictor(trained(image, mask, options.STEPS), torch.device("cpu"))
    grid = WindowGrid.cover(*mask.shape, options.WINDOW, options.OVERLAP)
    windows = []
    for top in grid.tops:
        for left in grid.lefts:
            rows, columns = slices(Window(top, left, *grid.size))
            windows.append(predict(to_images(image[:, rows, columns], valid[rows, columns])[None]))
    for blend in WAYS:
        probabilities = blended(windows, image, valid, grid, blend)
        right = (probabilities.argmax(0) == mask).mean()
        print(f"{blend}: {right:.4f} of the pixels are right", flush=True)
        for place in dict.fromkeys((blend, "none")):
            across, elsewhere = changes(probabilities, grid, place)
            numbers = f"{across:.5f}", f"{elsewhere:.5f}", f"{across / elsewhere:.3f}"
            common = options.SCENE.name, "unet resnet18", options.STEPS, options.WINDOW, options.OVERLAP
            yield [*common, blend, "its own" if place == blend else place, *numbers]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--SCENE", type=Path, required=True, help="folder with images/ and labels/world.tif")
    parser.add_argument(
        "--STEPS", type=int, default=100, help="of training, 4 crops of 128 x 128 pixels each"
    )
    parser.add_argument("--WINDOW", type=int, default=512, help="pixels")
    parser.add_argument("--OVERLAP", type=float, default=0.25, help="part of a window")
    rows = list(measure(parser.parse_args()))
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows] if new else rows)
    print("\n".join(",".join(map(str, cells)) for cells in [COLUMNS, *rows]))


if __name__ == "__main__":
    main()
