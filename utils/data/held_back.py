"""What is held back for validation where no list says so: some tiles, or some blocks of a scene."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.findings import FileError
from utils.data.layouts.base import Entry
from utils.data.raster import Window

# A scene is held back in about this many blocks: enough places, and each large enough to show context.
_BLOCKS = 6
_LARGEST_BLOCK = 1024  # pixels a side
# Width of the margin that neither training nor validation uses, as a share of a block's side.
_MARGIN = 0.25
_DRAWS = 64


def hold_back_tiles(entries: Sequence[Entry], fraction: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Divide tiles into (training, validation).

    The choice follows from each tile's name and the seed alone: neither the order of the files, nor the place
    of the folder, nor the other tiles change it, so a run that is resumed holds the same ones back.
    """
    count = min(max(1, round(fraction * len(entries))), len(entries) - 1)
    order = sorted(entries, key=lambda entry: hashlib.sha256(f"{seed}/{entry.name}".encode()).digest())
    chosen = {entry.name for entry in order[:count]}
    return (
        [entry for entry in entries if entry.name not in chosen],
        [entry for entry in entries if entry.name in chosen],
    )


@dataclass(frozen=True)
class Division:
    """A scene divided into training and validation; all in cells of its label.

    Attributes:
        train: (rows, columns), True where training may use the labels: neither in a block nor in a margin.
        blocks: Windows that are held back.
        avoid: The same with their margins.
        margin: Width of the margin.
    """

    train: np.ndarray
    blocks: tuple[Window, ...]
    avoid: tuple[Window, ...]
    margin: int


def hold_back_blocks(counts: np.ndarray, side: int, fraction: float, seed: int, what: str) -> Division:
    """Divide a scene by blocks.

    Blocks of one size are drawn among those with labels until they hold the fraction of the labelled pixels;
    of many draws the one is taken that leaves the fewest classes without pixels on either side. A margin of
    a quarter of a block around each is not used at all.

    Args:
        counts: Labelled pixels of each class in each cell (K, rows, columns).
        side: Side of a cell in pixels.
        fraction: Share of the labelled pixels to hold back.
        seed: Start of the draws.
        what: The scene, for messages.

    Raises:
        UserError: the labels lie too close together to be divided.
    """
    labelled = counts.sum(axis=0)
    area = np.count_nonzero(labelled) * side * side
    length = min((area * fraction / _BLOCKS) ** 0.5, _LARGEST_BLOCK)
    size = max(1, round(length / side))
    tops, lefts = (np.arange(0, cells, size) for cells in labelled.shape)
    per_block = np.add.reduceat(np.add.reduceat(counts, tops, axis=1), lefts, axis=2)
    totals = per_block.sum(axis=0)
    candidates = np.argwhere(totals > 0)
    rng = np.random.default_rng(seed)
    best: tuple[tuple, Division] | None = None
    for _ in range(_DRAWS):
        order = candidates[rng.permutation(len(candidates))]
        sums = totals[tuple(order.T)].cumsum()
        taken = order[: int(np.searchsorted(sums, fraction * sums[-1])) + 1]
        division = _divide(taken * size, size, labelled.shape)
        left = (counts * division.train).sum(axis=(1, 2))
        held = per_block[(slice(None), *taken.T)].sum(axis=1)
        missing = np.count_nonzero((left + held > 0) & ((left == 0) | (held == 0)))
        score = (int(missing), abs(float(held.sum() / sums[-1]) - fraction))
        if left.any() and (best is None or score < best[0]):
            best = score, division
    if best is None:
        raise FileError(
            f"{what}: the labels lie too close together to hold back a part for validation; "
            "label more places, or give a second scene with labels in annotations/val.txt",
            "not divisible",
            what,
        )
    return best[1]


def _divide(corners: np.ndarray, size: int, shape: tuple[int, int]) -> Division:
    """Hold back the blocks of `size` cells at these corners (rows of top, left)."""
    margin = max(1, round(size * _MARGIN))
    wide = size + 2 * margin
    blocks = tuple(_window(top, left, size, shape) for top, left in corners.tolist())
    avoid = tuple(_window(top - margin, left - margin, wide, shape) for top, left in corners.tolist())
    train = np.ones(shape, dtype=bool)
    for window in avoid:
        train[window.top : window.top + window.height, window.left : window.left + window.width] = False
    return Division(train, blocks, avoid, margin)


def _window(top: int, left: int, side: int, shape: tuple[int, int]) -> Window:
    """Return a square cut at the borders."""
    bottom, right = min(top + side, shape[0]), min(left + side, shape[1])
    top, left = max(top, 0), max(left, 0)
    return Window(top, left, bottom - top, right - left)
