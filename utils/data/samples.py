"""Samples: which part of which files is read, and how windows are drawn from a scene."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from utils.data.pieces import Piece, Source
from utils.data.window import LARGE, Window

# Longest side of the blocks in which a scene is measured, pixels.
BLOCK = 1024


@dataclass(frozen=True)
class Sample:
    """One image with its label (None where there is none), or a part of both.

    Attributes:
        name: Name without extension.
        image: The image file.
        label: The label file.
        height: Rows of the part.
        width: Columns of the part.
        class_counts: (Class id, pixels) of the classes that the label shows.
        window: The part of the files; None is all of them.
        cells: Where a scene has labels; training windows are drawn around them. Empty for a tile.
        avoid: Parts of the files that belong to another split or to the margin around it.
        pieces: What is read where bands are selected or stacked; empty: the image as it is.
    """

    name: str
    image: Path
    label: Path | None
    height: int
    width: int
    class_counts: tuple[tuple[int, int], ...] = ()
    window: Window | None = None
    cells: tuple[Window, ...] = ()
    avoid: tuple[Window, ...] = ()
    pieces: Source = ()

    @property
    def source(self) -> Source:
        """The files that the image is read from."""
        return self.pieces or (Piece(self.image),)

    @property
    def part(self) -> Window:
        """The part of the files that the sample is."""
        return self.window or Window(0, 0, self.height, self.width)

    def inside(self, window: Window | None) -> Window | None:
        """Return a window of the part as one of the files; None, the whole part, may be all of the files."""
        if window is None or self.window is None:
            return window or self.window
        return Window(self.window.top + window[0], self.window.left + window[1], window[2], window[3])

    def allowed(self, window: Window) -> np.ndarray:
        """Return (h, w), False where a window of the files reaches into what is to be avoided."""
        mask = np.ones((window.height, window.width), dtype=bool)
        for hole in self.avoid:
            common = intersection(hole, window)
            if common:
                top, left = common.top - window.top, common.left - window.left
                mask[top : top + common.height, left : left + common.width] = False
        return mask


def intersection(one: Window, other: Window) -> Window | None:
    """Return what two windows share, None where they share nothing."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.height, other.top + other.height)
    right = min(one.left + one.width, other.left + other.width)
    return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None


def training_samples(samples: Sequence[Sample], crop: tuple[int, int]) -> tuple[Sample, ...]:
    """Divide scenes so that an epoch draws as many windows from them as crops cover their labelled cells.

    A tile stays one sample. Each sample of a scene owns some of its cells and draws one anew each time.
    """
    result: list[Sample] = []
    for sample in samples:
        if not sample.cells:
            result.append(sample)
            continue
        area = sum(cell.height * cell.width for cell in sample.cells)
        count = max(1, round(area / (crop[0] * crop[1])))
        owned = len(sample.cells)
        for index in range(count):
            first, last = index * owned // count, (index + 1) * owned // count
            cells = sample.cells[first : max(last, first + 1)]
            result.append(dataclasses.replace(sample, cells=cells))
    return tuple(result)


def evaluation_samples(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Cut scenes into equal blocks of at most `BLOCK` pixels a side; blocks without labels are left out."""
    result: list[Sample] = []
    for sample in samples:
        if sample.height * sample.width <= LARGE:
            result.append(sample)
            continue
        for block in _blocks(sample.part):
            if not sample.cells or any(intersection(cell, block) for cell in sample.cells):
                result.append(block_sample(sample, block))
    return tuple(result)


def block_sample(sample: Sample, block: Window) -> Sample:
    """Return a block of a sample's files as a sample of its own."""
    name = f"{sample.name}_{block.top}_{block.left}"
    return dataclasses.replace(
        sample, name=name, height=block.height, width=block.width, window=block, cells=()
    )


def draw_view(sample: Sample, rng: np.random.Generator) -> tuple[Sample, np.ndarray | None]:
    """Return the part of a sample from which a crop may be cut, and a pixel (1, 2) that the crop shall hold.

    A tile is given back as it is, with nothing to aim at. Of a scene a cell is drawn, and a pixel of it.
    """
    if not sample.cells:
        return sample, None
    cell = sample.cells[rng.integers(len(sample.cells))]
    return view_around(sample, rng.integers(cell[:2], np.add(cell[:2], cell[2:])))


def view_around(sample: Sample, pixel: np.ndarray) -> tuple[Sample, np.ndarray]:
    """Return the part of a scene around a pixel that touches nothing to be avoided, and the pixel in it."""
    row, column = (int(index) for index in pixel)
    region = free_region(sample.part, Window(row, column, 1, 1), sample.avoid)
    view = dataclasses.replace(
        sample, height=region.height, width=region.width, window=region, cells=(), avoid=()
    )
    return view, np.array([[row - region.top, column - region.left]])


def free_region(part: Window, cell: Window, avoid: Sequence[Window]) -> Window:
    """Return a rectangle around `cell` within `part` that touches no window of `avoid`."""
    for hole in avoid:
        if intersection(hole, part) is None:
            continue
        bottom, right = part.top + part.height, part.left + part.width
        below, beside = hole.top + hole.height, hole.left + hole.width
        choices = []
        if hole.top >= cell.top + cell.height:
            choices.append(Window(part.top, part.left, hole.top - part.top, part.width))
        if below <= cell.top:
            choices.append(Window(below, part.left, bottom - below, part.width))
        if hole.left >= cell.left + cell.width:
            choices.append(Window(part.top, part.left, part.height, hole.left - part.left))
        if beside <= cell.left:
            choices.append(Window(part.top, beside, part.height, right - beside))
        part = max(choices, key=lambda window: window.height * window.width)
    return part


def _blocks(part: Window) -> list[Window]:
    rows, columns = math.ceil(part.height / BLOCK), math.ceil(part.width / BLOCK)
    tops = [part.top + part.height * index // rows for index in range(rows + 1)]
    lefts = [part.left + part.width * index // columns for index in range(columns + 1)]
    return [
        Window(top, left, bottom - top, right - left)
        for top, bottom in pairwise(tops)
        for left, right in pairwise(lefts)
    ]
