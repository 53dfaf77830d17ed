"""Prediction of scenes of any size by overlapping windows, streamed from top to bottom.

Memory depends on the width of the scene and the window, never on the height: one row of windows is read,
predicted and blended into a ring of window-high rows, and rows that no later window reaches leave at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from utils.data.raster import Window
from utils.inference.blending import axis_weights

Predict = Callable[[torch.Tensor], torch.Tensor]
Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]

# Rows leave in pieces of about this size, so that what is done with them needs little memory of its own.
PIECE_BYTES = 16 * 2**20


def window_starts(length: int, size: int, overlap: float) -> tuple[int, ...]:
    """Return the first positions of windows that cover `length` pixels; the last is shifted inwards.

    Args:
        length: side of the scene, pixels.
        size: side of a window, pixels, at most `length`.
        overlap: part of a window that its neighbour shares, 0 <= overlap < 1.
    """
    step = max(1, round(size * (1 - overlap)))
    return (*range(0, length - size, step), length - size)


@dataclass(frozen=True)
class WindowGrid:
    """Windows of one size over a scene; a scene smaller than the window makes the window smaller.

    Attributes:
        height: rows of a window, pixels.
        width: columns of a window, pixels.
        tops: first row of each row of windows.
        lefts: first column of each column of windows.
    """

    height: int
    width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def cover(cls, height: int, width: int, window: int | tuple[int, int], overlap: float) -> "WindowGrid":
        """Return the grid over a scene of height x width pixels.

        Args:
            height: rows of the scene.
            width: columns of the scene.
            window: side of a window, or (height, width), pixels.
            overlap: part of a window that its neighbour shares, 0 <= overlap < 1.
        """
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap {overlap} is given; 0 <= overlap < 1 is needed")
        rows, columns = (window, window) if isinstance(window, int) else window
        rows, columns = min(rows, height), min(columns, width)
        return cls(
            rows, columns, window_starts(height, rows, overlap), window_starts(width, columns, overlap)
        )

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)


class RowRing:
    """Sums of weighted probabilities of the rows that windows still reach; row y lives in slot y % rows."""

    def __init__(self, num_classes: int, rows: int, width: int) -> None:
        self.sums = torch.zeros(num_classes, rows, width)
        self.rows = rows

    def _slots(self, top: int, count: int) -> Iterator[tuple[slice, slice]]:
        """Yield (rows of the request, slots of the ring): two parts where the ring ends in between."""
        start = top % self.rows
        first = min(count, self.rows - start)
        yield slice(0, first), slice(start, start + first)
        if first < count:
            yield slice(first, count), slice(0, count - first)

    def add(self, top: int, left: int, probabilities: torch.Tensor, weights: torch.Tensor) -> None:
        """Add the probabilities (K, h, w) of a window times their weights (h, w)."""
        height, width = weights.shape
        for rows, slots in self._slots(top, height):
            target = self.sums[:, slots, left : left + width]
            target.addcmul_(probabilities[:, rows], weights[rows])

    def take(self, top: int, count: int) -> np.ndarray:
        """Return a copy (K, count, W) of finished rows and clear their slots for later ones."""
        taken = np.empty((self.sums.shape[0], count, self.sums.shape[2]), np.float32)
        for rows, slots in self._slots(top, count):
            taken[:, rows] = self.sums[:, slots].numpy()
            self.sums[:, slots] = 0
        return taken


def read_strips(read: Read, grid: WindowGrid, width: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (top, image (C, h, W), valid (h, W)) for each row of windows.

    `read` is asked for every row of the scene exactly once, from top to bottom, over the full width: files in
    strips and PNG or JPEG would be decoded anew for every window otherwise. The arrays are used again for the
    next row of windows.
    """
    image, valid = read(Window(0, 0, grid.height, width))
    image, valid = np.array(image), np.array(valid)
    yield 0, image, valid
    for previous, top in pairwise(grid.tops):
        new = top - previous
        for plane in (*image, valid):  # plane by plane: numpy copies what overlaps
            plane[:-new] = plane[new:].copy()
        image[:, -new:], valid[-new:] = read(Window(previous + grid.height, 0, new, width))
        yield top, image, valid


def to_images(image: np.ndarray, valid: np.ndarray) -> torch.Tensor:
    """Return the image (C, h, w) of any dtype as a float32 tensor with NaN where it is not valid."""
    images = image.astype(np.float32)
    if not valid.all():
        images[:, ~valid] = np.nan
    return torch.from_numpy(images)


def predict_rows(
    predict: Predict,
    read: Read,
    height: int,
    width: int,
    num_classes: int,
    window: int | tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
    *,
    blend: str = "gaussian",
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Predict a scene window by window and yield its rows from top to bottom as soon as they are final.

    Args:
        predict: float images (B, C, h, w), NaN where invalid -> probabilities (B, K, h, w), on any device.
        read: window -> image (C, h, W) of any dtype and valid (h, W); called for each row of the scene once.
        height: rows of the scene.
        width: columns of the scene.
        num_classes: K.
        window: side of a window, or (height, width), pixels.
        overlap: part of a window that its neighbour shares, 0 <= overlap < 1.
        batch_size: windows per call of `predict`.
        blend: weighting of overlapping windows, a key of `blending.PROFILES`.
        progress: called with the number of windows just done, those without a valid pixel included, which
            are not predicted.

    Yields:
        (top, probabilities (K, rows, W) float32); NaN where the scene is not valid.
    """
    grid = WindowGrid.cover(height, width, window, overlap)
    down = torch.from_numpy(axis_weights(grid.tops, grid.height, height, blend))
    across = torch.from_numpy(axis_weights(grid.lefts, grid.width, width, blend))
    ring = RowRing(num_classes, grid.height, width)
    ends = (*grid.tops[1:], height)
    for row, (top, image, valid) in enumerate(read_strips(read, grid, width)):
        for columns in _batches(valid, grid, batch_size, progress):
            parts = [slice(grid.lefts[i], grid.lefts[i] + grid.width) for i in columns]
            images = torch.stack([to_images(image[:, :, part], valid[:, part]) for part in parts])
            for i, probabilities in zip(columns, predict(images).float().cpu(), strict=True):
                ring.add(top, grid.lefts[i], probabilities, down[row][:, None] * across[i])
        yield from _finished(ring, top, ends[row], valid)


def _batches(
    valid: np.ndarray, grid: WindowGrid, batch_size: int, progress: Callable[[int], object] | None
) -> Iterator[list[int]]:
    """Yield the columns of windows with a valid pixel in batches; report each batch when it is done."""
    used = [i for i, left in enumerate(grid.lefts) if valid[:, left : left + grid.width].any()]
    report = progress or (lambda count: None)
    report(len(grid.lefts) - len(used))
    for start in range(0, len(used), batch_size):
        batch = used[start : start + batch_size]
        yield batch
        report(len(batch))


def _finished(ring: RowRing, top: int, end: int, valid: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows [top, end) of the ring in pieces, NaN where not `valid` (whose first row is `top`)."""
    num_classes, _, width = ring.sums.shape
    piece = max(1, PIECE_BYTES // (4 * num_classes * width))
    for start in range(top, end, piece):
        stop = min(start + piece, end)
        probabilities = ring.take(start, stop - start)
        probabilities[:, ~valid[start - top : stop - top]] = np.nan
        yield start, probabilities
