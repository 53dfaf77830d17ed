"""What a run tells before it starts: every decision and where it comes from."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from utils.data.layout import DatasetInfo
from utils.data.statistics import BandStatistics
from utils.evaluation.report import align

MOST_BANDS = 16
MOST_VALUES = 200


def say(*lines: str) -> None:
    """Print lines at once, also into a pipe."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def decisions_table(decisions: Sequence[tuple[str, object, str]]) -> list[str]:
    """Return lines "name  value  (reason)" with the values below each other."""
    width = max(len(name) for name, _, _ in decisions) + 2
    return [
        f"{name:<{width}}{_text(value)}{f'  ({reason})' if reason else ''}"
        for name, value, reason in decisions
    ]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return ", ".join(_text(part) for part in value) or "none"
    return str(value)


def flags_given(options: argparse.Namespace, defaults: dict[str, object]) -> str:
    """Return those of the flags that differ from their default, as a reason."""
    return ", ".join(f"--{name}" for name, default in defaults.items() if getattr(options, name) != default)


def bands_table(data: DatasetInfo, statistics: BandStatistics) -> list[str]:
    """Return aligned lines of each band's statistics."""
    rows = [["band", "mean", "std", "min", "max"]]
    columns = [statistics.mean, statistics.std, statistics.minimum, statistics.maximum]
    if statistics.low:
        rows[0] += [f"{percent:g} %" for percent in statistics.scaling.percentiles]
        columns += [statistics.low, statistics.high]
    for name, *values in zip(data.band_names, *columns, strict=True):
        rows.append([name, *(f"{value:.5g}" for value in values)])
    shown = rows[: MOST_BANDS + 1]
    lines = align(shown)
    if len(rows) > len(shown):
        lines.append(f"... and {len(rows) - len(shown)} more bands")
    if statistics.share:
        lines.append(statistics.share)
    constant = [name for name, std in zip(data.band_names, statistics.std, strict=True) if std == 0]
    if constant:
        lines.append(f"never varying, so of no use and of no harm: {', '.join(constant)}")
    return lines


def classes_table(
    data: DatasetInfo, weights: list[float] | None, drawn: np.ndarray | None = None
) -> list[str]:
    """Return aligned lines of each class's share of the labelled pixels per split and its loss weight.

    Args:
        data: The checked data set.
        weights: Loss weight per class, None for 1.
        drawn: Chance of each class that a crop is placed about it, None where none is preferred.
    """
    splits = list(data.splits)
    rows = [["class", *splits, "weight", *([] if drawn is None else ["crops"])]]
    for index, name in enumerate(data.classes.names):
        shares = [_share(data, split, index) for split in splits]
        row = [name, *shares, "1" if weights is None else f"{weights[index]:.3g}"]
        rows.append(row if drawn is None else [*row, f"{100 * drawn[index]:.2f}%"])
    return align(rows)


def groups_table(groups: Sequence[dict]) -> list[str]:
    """Return aligned lines of the parameter groups that `describe_groups` describes."""
    rows = [["parameter group", "tensors", "parameters", "lr", "weight decay"]]
    for group in groups:
        counts = [f"{group[name]:,}" for name in ("tensors", "parameters")]
        rows.append([group["group"], *counts, *(f"{group[name]:.3g}" for name in ("lr", "weight_decay"))])
    return align(rows)


def labels_table(data: DatasetInfo) -> list[str]:
    """Return aligned lines of each label value: the class it means and how many pixels hold it.

    Ignored values that do not occur are left out. Where bands are classes, a pixel counts in each of them.
    """
    classes, pixels = data.classes.meanings, data.value_pixels
    rows = [["label value", "class", "name", "pixels"]]
    for value, index in sorted(classes.table.items(), key=lambda item: (item[1], item[0])):
        if value not in classes.ignored:
            number = f"{pixels.get(value, 0):,}"
            rows.append([classes.text(value), str(index), classes.names[index], number])
    for value in sorted(classes.ignored):
        if pixels.get(value):
            rows.append([classes.text(value), "-", "ignored", f"{pixels[value]:,}"])
    shown = rows[: MOST_VALUES + 1]
    more = [f"... and {len(rows) - len(shown)} more values"] if len(rows) > len(shown) else []
    return [*align(shown), *more]


def _share(data: DatasetInfo, split: str, index: int) -> str:
    labelled = max(int(data.labelled[split][index]), 1)
    return f"{100 * data.label_counts[split][index] / labelled:.2f}%"
