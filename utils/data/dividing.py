"""Samples of the splits: whole images, or the blocks into which scenes are divided.

Tallies are the pixels of each class (K). Where bands are classes they are 2 K numbers: the pixels where each
class is present, then those where it is absent; what is labelled is in one of them, as of other labels.
"""

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
    """Scenes of which a part is held back: samples and tallies per split, and words."""

    samples: dict[str, tuple[Sample, ...]]
    counts: dict[str, np.ndarray]
    text: str


def whole_samples(parts: Sequence[Part], classes: Classes) -> tuple[tuple[Sample, ...], np.ndarray]:
    """Return a sample per image, and the tallies of all of them."""
    samples = []
    counts = _no_tallies(classes)
    for part in parts:
        cells = ()
        if part.label.cells is not None:
            cells = _windows(cell_tallies(part.label, classes).any(axis=0), part)
        own = tallies(part.label, classes)
        samples.append(_sample(part, own[: classes.num_classes], cells))
        counts += own
    return tuple(samples), counts


def divide_scenes(parts: Sequence[Part], classes: Classes, fraction: float, seed: int) -> Divided:
    """Hold blocks of each scene back for validation.

    Raises:
        UserError: the labels of a scene lie too close together.
    """
    train: list[Sample] = []
    val: list[Sample] = []
    counts, shown = {split: _no_tallies(classes) for split in ("train", "val")}, classes.num_classes
    total, words = 0, []
    for index, part in enumerate(parts):
        cells = part.label.cells
        grid = cell_tallies(part.label, classes)
        total += int(grid.sum())
        division = hold_back_blocks(grid, cells.side, fraction, seed + index, str(part.entry.label))
        avoid = tuple(_pixels(window, part) for window in division.avoid)
        own = (grid * division.train).sum(axis=(1, 2))
        train.append(_sample(part, own[:shown], _windows(grid.any(axis=0) & division.train, part), avoid))
        whole = _sample(part, np.zeros_like(own))
        counts["train"] += own
        for block in division.blocks:
            held = grid[:, block.top : block.top + block.height, block.left : block.left + block.width]
            held = held.sum(axis=(1, 2))
            counts["val"] += held
            val.append(replace(block_sample(whole, _pixels(block, part)), class_counts=_shown(held[:shown])))
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


def tallies(label: LabelScan, classes: Classes) -> np.ndarray:
    """Return the tallies of a label."""
    if classes.multilabel and not label.bands:  # only its header was read
        return _no_tallies(classes)
    meanings = classes.meanings
    counts = np.zeros((len(label.bands) or 1, meanings.num_classes), dtype=np.int64)
    for own, band in zip(counts, label.bands or (label,), strict=True):
        for value, count in band.values(meanings).items():
            if value in meanings.table and value not in meanings.ignored:
                own[meanings.table[value]] += count
    return _arranged(counts, classes)


def cell_tallies(label: LabelScan, classes: Classes) -> np.ndarray:
    """Return the tallies of each cell of a scene's label, (K or 2 K, rows, columns)."""
    meanings = classes.meanings
    bands = [band.cells.per_class(meanings, label.nodata) for band in label.bands or (label,)]
    return _arranged(np.stack(bands), classes)


def _arranged(bands: np.ndarray, classes: Classes) -> np.ndarray:
    """Return the tallies from the counts (bands, meanings, ...)."""
    return np.concatenate([bands[:, 1], bands[:, 0]]) if classes.multilabel else bands[0]


def _no_tallies(classes: Classes) -> np.ndarray:
    return np.zeros(classes.num_classes * (2 if classes.multilabel else 1), dtype=np.int64)


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
