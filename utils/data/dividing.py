"""Samples of the splits: whole images, or the blocks into which scenes are divided."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from utils.data.class_table import LabelScan
from utils.data.held_back import hold_back_blocks
from utils.data.labels import Classes
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo, Window
from utils.data.samples import Sample, block_sample


class Part(NamedTuple):
    """One image with its label, as they were found on disk."""

    entry: Entry
    image: RasterInfo
    label: LabelScan


class Divided(NamedTuple):
    """Scenes of which a part is held back: samples and pixels of each class (K) per split, and words."""

    samples: dict[str, tuple[Sample, ...]]
    counts: dict[str, np.ndarray]
    text: str


def whole_samples(parts: Sequence[Part], classes: Classes) -> tuple[tuple[Sample, ...], np.ndarray]:
    """Return a sample per image, and the pixels of each class (K) in all of them."""
    samples = []
    counts = np.zeros(classes.num_classes, dtype=np.int64)
    for part in parts:
        cells = ()
        if part.label.cells is not None:
            grid = part.label.cells.per_class(classes, part.label.nodata)
            cells = _windows(grid.any(axis=0), part)
        own = class_counts(part.label, classes)
        samples.append(_sample(part, own, cells))
        counts += own
    return tuple(samples), counts


def divide_scenes(parts: Sequence[Part], classes: Classes, fraction: float, seed: int) -> Divided:
    """Hold blocks of each scene back for validation.

    Raises:
        UserError: the labels of a scene lie too close together.
    """
    train: list[Sample] = []
    val: list[Sample] = []
    counts = {split: np.zeros(classes.num_classes, dtype=np.int64) for split in ("train", "val")}
    total, words = 0, []
    for index, part in enumerate(parts):
        cells = part.label.cells
        grid = cells.per_class(classes, part.label.nodata)
        total += int(grid.sum())
        division = hold_back_blocks(grid, cells.side, fraction, seed + index, str(part.entry.label))
        avoid = tuple(_pixels(window, part) for window in division.avoid)
        own = (grid * division.train).sum(axis=(1, 2))
        train.append(_sample(part, own, _windows(grid.any(axis=0) & division.train, part), avoid))
        whole = _sample(part, np.zeros_like(own))
        counts["train"] += own
        for block in division.blocks:
            held = grid[:, block.top : block.top + block.height, block.left : block.left + block.width]
            held = held.sum(axis=(1, 2))
            counts["val"] += held
            val.append(replace(block_sample(whole, _pixels(block, part)), class_counts=_shown(held)))
        side, margin = max(block.height for block in division.blocks), division.margin
        words.append(
            f"{len(division.blocks)} blocks of {side * cells.side} pixels a side with a margin of "
            f"{margin * cells.side}"
        )
    used, held = counts["train"].sum() / max(total, 1), counts["val"].sum() / max(total, 1)
    text = (
        f"no validation list: {'; '.join(words)} are held back from the scene for it; of the labelled pixels "
        f"{100 * held:.1f} % are validation, {100 * used:.1f} % training, the rest is margin"
    )
    return Divided({"train": tuple(train), "val": tuple(val)}, counts, text)


def class_counts(label: LabelScan, classes: Classes) -> np.ndarray:
    """Return the pixels of each class (K)."""
    counts = np.zeros(classes.num_classes, dtype=np.int64)
    for value, count in label.values(classes).items():
        if value in classes.table and value not in classes.ignored:
            counts[classes.table[value]] += count
    return counts


def _sample(
    part: Part, counts: np.ndarray, cells: tuple[Window, ...] = (), avoid: tuple[Window, ...] = ()
) -> Sample:
    entry, image = part.entry, part.image
    size = (image.height, image.width)
    return Sample(
        entry.name, entry.image, entry.label, *size, _shown(counts), None, cells, avoid, image.pieces
    )


def _shown(counts: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return (class id, pixels) of the classes that occur."""
    return tuple((int(class_id), int(counts[class_id])) for class_id in np.flatnonzero(counts))


def _windows(mask: np.ndarray, part: Part) -> tuple[Window, ...]:
    """Return the windows in pixels of the cells where a mask (rows, columns) is True."""
    return tuple(_pixels(Window(row, column, 1, 1), part) for row, column in np.argwhere(mask).tolist())


def _pixels(cells: Window, part: Part) -> Window:
    """Return a window of cells in pixels, cut at the borders."""
    side = part.label.cells.side
    top, left = cells.top * side, cells.left * side
    bottom = min((cells.top + cells.height) * side, part.image.height)
    right = min((cells.left + cells.width) * side, part.image.width)
    return Window(top, left, bottom - top, right - left)
