"""Prediction of scenes of any size by overlapping windows, streamed from top to bottom.

Memory depends on the width of the scene and the window, never on the height: one row of windows is read (and
meanwhile the next one), predicted in batches and blended, and what no later window reaches leaves at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from utils.data.raster import Window
from utils.inference.ahead import ahead
from utils.inference.blending import Blender

Predict = Callable[[torch.Tensor], torch.Tensor]
Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]


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

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        return self.height, self.width

    def first_row(self, start: int) -> int:
        """Return the first row of windows that reaches the scene's row `start` or one below."""
        return next(row for row, top in enumerate(self.tops) if top + self.height > start)

    def rows(self, start: int, stop: int) -> range:
        """Return the rows of windows that reach into the scene's rows from `start` to above `stop`."""
        if start >= stop:
            return range(0)
        return range(self.first_row(start), sum(top < stop for top in self.tops))

    def around(self, part: Window) -> tuple["WindowGrid", Window]:
        """Return the grid of those windows that reach into a part of the scene, and what they cover.

        The grid begins where that begins. By these windows alone the part is predicted as by all.
        """
        tops = [top for top in self.tops if part.top - self.height < top < part.top + part.height]
        lefts = [left for left in self.lefts if part.left - self.width < left < part.left + part.width]
        height, width = tops[-1] + self.height - tops[0], lefts[-1] + self.width - lefts[0]
        own = tuple(top - tops[0] for top in tops), tuple(left - lefts[0] for left in lefts)
        return WindowGrid(*self.size, *own), Window(tops[0], lefts[0], height, width)


class Block(NamedTuple):
    """A final part of a scene.

    Attributes:
        top: first row in the scene.
        left: first column in the scene.
        valid: (h, w), True where the scene has data.
        probabilities: (K, h, w) float32 on the device of the network, any number where not valid; None where
            no pixel is valid. The next block may overwrite it.
    """

    top: int
    left: int
    valid: np.ndarray
    probabilities: torch.Tensor | None


class _Entry(NamedTuple):
    """A window that waits for its batch: its place in the grid, and its valid pixels."""

    row: int
    column: int
    valid: np.ndarray
    used: bool  # some pixel is valid


def read_strips(
    read: Read, grid: WindowGrid, width: int, rows: range | None = None, threads: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (row of windows, image (C, h, W), valid (h, W)) for the given rows of windows, default: all.

    `read` is asked for every row of the scene exactly once, from top to bottom, over the full width: files in
    strips and PNG or JPEG would be decoded anew for every window otherwise. With `threads` it is asked for
    the next rows while these are predicted. The arrays are used again for the next row of windows.
    """
    first, last = (rows.start, rows.stop) if rows else (0, len(grid.tops))
    tops = grid.tops[first:last]
    ends = [top + grid.height for top in tops]
    parts = [Window(top, 0, end - top, width) for top, end in zip((tops[0], *ends), ends, strict=False)]
    strips = ahead(read, parts, min(threads, 1))
    image, valid = (np.array(array) for array in next(strips))
    yield first, image, valid
    for row in range(first + 1, last):
        new_image, new_valid = next(strips)
        new = len(new_valid)
        for plane in (*image, valid):  # plane by plane: numpy copies what overlaps
            plane[:-new] = plane[new:].copy()
        image[:, -new:], valid[-new:] = new_image, new_valid
        del new_image, new_valid  # else they stay as long as this row is predicted
        yield row, image, valid


def to_images(image: np.ndarray, valid: np.ndarray) -> torch.Tensor:
    """Return the image (C, h, w) of any dtype as a float32 tensor with NaN where it is not valid."""
    images = image.astype(np.float32)
    if not valid.all():
        images[:, ~valid] = np.nan
    return torch.from_numpy(images)


def pad_by_reflection(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Continue an image (C, h, w) at the bottom and the right by its mirror image to at least `size`."""
    missing = [max(0, wanted - side) for wanted, side in zip(size, image.shape[1:], strict=True)]
    if not any(missing):
        return image
    return np.pad(image, [(0, 0), (0, missing[0]), (0, missing[1])], mode="reflect")


def predict_blocks(
    predict: Predict,
    read: Read,
    scene: tuple[int, int],
    grid: WindowGrid,
    batch_size: int = 4,
    *,
    blend: str = "gaussian",
    least: tuple[int, int] = (0, 0),
    start: int = 0,
    stop: int | None = None,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Block]:
    """Predict a scene window by window and yield its blocks, row by row, as soon as they are final.

    Args:
        predict: float images (B, C, h, w), NaN where invalid -> probabilities (B, K, h, w), on any device;
            they are overwritten.
        read: window -> image (C, h, W) of any dtype and valid (h, W); called for each row of the scene once.
        scene: (rows, columns) of the scene.
        grid: windows that cover it.
        batch_size: windows per call of `predict`.
        blend: weighting of overlapping windows, a key of `blending.PROFILES`.
        least: a scene smaller than this is continued by reflection; the network sees no smaller window.
        start: first row to yield; the windows that reach it are predicted, with the same result.
        stop: row below the last one to yield, above `start`; default: all rows.
        threads: 0 reads in this thread, more read the next rows meanwhile.
        progress: called with the number of windows just done, those without a valid pixel included, which
            are not predicted.
    """
    stop = scene[0] if stop is None else stop
    wanted = grid.rows(start, stop)
    blender = Blender(grid.tops, grid.lefts, grid.size, scene, blend, wanted.start)
    strips = read_strips(read, grid, scene[1], wanted, threads)
    for batch, images in _batches(strips, grid, batch_size, least):
        scored = iter(() if images is None else predict(images).float()[..., : grid.height, : grid.width])
        del images
        for entry in batch:
            ready = blender.add(entry.row, entry.column, next(scored) if entry.used else None)
            rows, columns = blender.block(entry.row, entry.column)
            valid = entry.valid[: rows.stop - rows.start, : columns.stop - columns.start]
            due = slice(max(0, start - rows.start), max(0, stop - rows.start))
            if due.start < len(valid):
                ready = None if ready is None else ready[:, due]
                yield Block(rows.start + due.start, columns.start, valid[due], ready)
        scored = ready = None  # the next batch must not need room beside this one
        if progress:
            progress(len(batch))


def _batches(
    strips: Iterator[tuple[int, np.ndarray, np.ndarray]],
    grid: WindowGrid,
    batch_size: int,
    least: tuple[int, int],
) -> Iterator[tuple[list[_Entry], torch.Tensor | None]]:
    """Cut the strips into windows and gather `batch_size` of them with data, over the ends of rows.

    Yields:
        Windows, and the images (B, C, h, w) of those with data, None where none has.
    """
    batch: list[_Entry] = []
    images = _Images(batch_size)
    for row, image, valid in strips:
        for column, left in enumerate(grid.lefts):
            part = slice(left, left + grid.width)
            entry = _Entry(row, column, valid[:, part].copy(), bool(valid[:, part].any()))
            batch.append(entry)
            if entry.used:
                images.add(image[:, :, part], entry.valid, least)
            # A desert of windows without data must not wait for the next one with some.
            if images.count == batch_size or len(batch) >= 4 * batch_size:
                yield batch, images.take()
                batch = []
    if batch:
        yield batch, images.take()


class _Images:
    """Windows, gathered in place: a copy of a batch of many bands would take as much memory as the batch."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.count = batch_size, 0
        self.images: np.ndarray | None = None

    def add(self, image: np.ndarray, valid: np.ndarray, least: tuple[int, int]) -> None:
        """Add a window (C, h, w), NaN where not valid, continued by reflection to at least `least`."""
        bands, *sides = image.shape
        size = tuple(map(max, sides, least))
        if self.images is None:
            self.images = np.empty((self.batch_size, bands, *size), np.float32)
        target = self.images[self.count]
        inner = target[:, : sides[0], : sides[1]]
        inner[...] = image
        if not valid.all():
            inner[:, ~valid] = np.nan
        if inner.shape != target.shape:
            target[...] = pad_by_reflection(inner, size)
        self.count += 1

    def take(self) -> torch.Tensor | None:
        """Return the windows so far as one tensor, and begin anew; None without any."""
        images, count = self.images, self.count
        self.images, self.count = None, 0
        return torch.from_numpy(images[:count]) if count else None
