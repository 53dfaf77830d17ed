"""Plots of several runs beside each other."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.evaluation.plots import RULE, fonts, legible, save

if TYPE_CHECKING:
    from utils.evaluation.compare import Run

_MARKS = "osD^vP*X<>"


def draw_scores(runs: Sequence["Run"], path: Path) -> None:
    """Draw each run's best mIoU against its parameters, its speed and its epochs."""
    axes_of = {
        "parameters (millions)": [run.parameters / 1e6 for run in runs],
        "training speed (images per second)": [run.speed for run in runs],
        "epochs": [run.epochs for run in runs],
    }
    with fonts():
        figure = Figure(figsize=(13.5, 4.2), layout="constrained")
        for axes, (name, values) in zip(figure.subplots(1, 3, sharey=True), axes_of.items(), strict=True):
            for run, value, style in zip(runs, values, _styles(len(runs)), strict=True):
                axes.plot(value, run.metrics["mIoU"], linestyle="", markersize=9, **style)
            axes.set_xlabel(name, fontsize=9)
            axes.margins(0.15)
            axes.set_xlim(left=0)
            _dress(axes)
        figure.axes[0].set_ylabel("best mIoU", fontsize=9)
        _legend(figure, runs)
        save(figure, path)


def draw_curves(runs: Sequence["Run"], path: Path) -> None:
    """Draw each run's mIoU over the epochs."""
    with fonts():
        figure = Figure(figsize=(9.0, 4.6), layout="constrained")
        axes = figure.subplots()
        for run, style in zip(runs, _styles(len(runs)), strict=True):
            marks = style if len(run.curve) <= 30 else {**style, "marker": ""}
            axes.plot(*zip(*run.curve, strict=True), linewidth=1.7, markersize=4.5, **marks)
        axes.set_xlabel("epoch", fontsize=9)
        axes.set_ylabel("mIoU", fontsize=9)
        _dress(axes)
        _legend(figure, runs)
        save(figure, path)


def draw_classes(rows: Sequence[Sequence], path: Path) -> None:
    """Draw the IoU of each class in each run, a line of dots per class; rows as `class_rows` gives them."""
    head, *classes = rows
    runs, labels = head[1:-1], legible([row[0] for row in classes])
    with fonts():
        figure = Figure(figsize=(9.0, 1.6 + 0.34 * len(classes)), layout="constrained")
        axes = figure.subplots()
        for line, row in enumerate(classes):
            known = [value for value in row[1:-1] if value is not None]
            if known:
                axes.plot([min(known), max(known)], [line, line], color=RULE, linewidth=3, zorder=1)
        for column, style in enumerate(_styles(len(runs)), start=1):
            values = [math.nan if row[column] is None else row[column] for row in classes]
            axes.plot(values, range(len(classes)), linestyle="", markersize=7, **style)
        axes.set_yticks(range(len(classes)), labels)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("IoU", fontsize=9)
        _dress(axes)
        _legend(figure, runs)
        save(figure, path)


def _styles(count: int) -> list[dict]:
    """Return a colour and a mark for each run, so that colour alone tells nothing."""
    colors = matplotlib.colormaps["tab10"].colors
    return [
        {"color": colors[index % len(colors)], "marker": _MARKS[index % len(_MARKS)]}
        for index in range(count)
    ]


def _dress(axes: Axes) -> None:
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=3)


def _legend(figure: Figure, runs: Sequence) -> None:
    """Draw the names of the runs (or runs themselves) below all."""
    names = legible([getattr(run, "name", run) for run in runs], longest=40)
    handles = [
        matplotlib.lines.Line2D([], [], label=name, markersize=7, linestyle="", **style)
        for name, style in zip(names, _styles(len(names)), strict=True)
    ]
    columns = max(1, min(len(names), int(13 * figure.get_figwidth() / (4 + max(map(len, names))))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
