"""Pictures of numbers: the confusion matrix and the curves of a training run.

Figures are built as objects and drawn by Agg; `pyplot` and its global state are never touched, so training in
a thread, a notebook or without a display works the same.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from utils.evaluation.metrics import PRESENCE
from utils.files import replacing

# fonts with Chinese, Japanese and Korean characters as Windows, macOS and Linux bring them
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "SimSun",
    "Noto Sans CJK JP",
)
INK, MUTED, RULE = "#222222", "#777777", "#dddddd"
BLUE, ORANGE, GREEN = "#2f6db3", "#d9772b", "#4b9560"


@functools.cache
def _families() -> tuple[str, ...]:
    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in CJK_FONTS if name in installed))


@functools.cache
def _drawable() -> frozenset[int]:
    paths = [findfont(FontProperties(family=family)) for family in _families()]
    return frozenset(code for path in paths for code in FT2Font(path).get_charmap())


def fonts() -> AbstractContextManager:
    """Return a context in which text falls back to an installed font that has its characters."""
    return matplotlib.rc_context(
        {
            "font.family": list(_families()),
            "text.color": INK,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def legible(names: Sequence[str], longest: int = 28) -> list[str]:
    """Return the names as a picture can show them.

    A name with a character that no installed font has becomes `class 3` (its number), a very long one is cut.
    """
    shown = []
    for index, name in enumerate(names):
        if not name or any(ord(character) not in _drawable() for character in name):
            name = f"class {index}"
        name = name if len(name) <= longest else f"{name[: longest - 1]}…"
        shown.append(name.replace("$", r"\$"))  # two dollars would start a formula
    return shown


def save(figure: Figure, path: Path, dpi: int = 140) -> None:
    """Write a figure as PNG; the file appears whole or not at all."""
    FigureCanvasAgg(figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.15)


def draw_confusion(matrix: Tensor | np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw a (K, K) confusion matrix (rows truth, columns prediction), each row as shares of its true pixels.

    Cells carry their percentage up to 20 classes; the row of a class without true pixels stays blank. Of
    several labels, (K, 2, 2), a row shows what becomes of the pixels with and of those without a class.
    """
    counts = np.asarray(matrix.cpu() if isinstance(matrix, Tensor) else matrix, dtype=np.float64)
    several = counts.ndim == 3
    counts = counts[:, ::-1, ::-1] if several else counts
    truth = counts.sum(axis=-1, keepdims=True)
    shares = np.divide(100 * counts, truth, out=np.full_like(counts, np.nan), where=truth > 0)
    classes = len(counts)
    shares = shares.reshape(classes, -1)
    cell = min(0.8, max(0.16, 10 / classes))  # inches
    size = max(2.4, cell * classes)
    labels = legible(class_names)
    with fonts():
        figure = Figure(figsize=(max(2.4, cell * 4) if several else size, size))
        axes = figure.add_axes((0, 0, 1, 1))  # the labels stand outside; `save` widens the picture to them
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#f2f2f2")
        image = axes.imshow(shares, cmap=colors, vmin=0, vmax=100, aspect="auto" if several else "equal")
        _label_cells(axes, labels, list(PRESENCE) if several else labels, cell)
        if several:
            axes.set(xlabel="with the class, and without", ylabel="class")
        if classes <= 20:
            _print_shares(axes, shares, cell)
        side = axes.inset_axes((1 + 0.12 / size, 0, 0.16 / size, 1))
        bar = figure.colorbar(image, cax=side, ticks=range(0, 101, 20))
        what = "with or without a class" if several else "of a class"
        bar.set_label(f"% of the true pixels {what}", fontsize=9)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.outline.set_visible(False)
        save(figure, path)


def _label_cells(axes: Axes, labels: list[str], columns: list[str], cell: float) -> None:
    font = min(10.0, max(7.0, 15 * cell))
    flat = max(len(label) for label in columns) * 0.6 * font / 72 < 0.92 * cell
    turned = {} if flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, fontsize=font, **turned)
    axes.set_yticks(range(len(labels)), labels, fontsize=font)
    axes.set_xlabel("prediction", fontsize=11, labelpad=8)
    axes.set_ylabel("truth", fontsize=11, labelpad=8)
    axes.set_xticks([step - 0.5 for step in range(1, len(columns))], minor=True)
    axes.set_yticks([step - 0.5 for step in range(1, len(labels))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _print_shares(axes: Axes, shares: np.ndarray, cell: float) -> None:
    font = min(10.0, max(6.0, 13 * cell))
    for row, column in zip(*np.nonzero(~np.isnan(shares)), strict=True):
        value = shares[row, column]
        # 100 only for all, 0 only for none: a rounded 0 hides a confusion that is there
        text = f"{value:.1f}" if 0 < value < 100 else f"{value:.0f}"
        text = "<0.1" if text == "0.0" else ">99.9" if text == "100.0" else text
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=font if len(text) < 5 else 0.85 * font,
            color="white" if value > 55 else INK if value >= 1 else MUTED,
        )


def draw_curves(rows: Sequence[Mapping], path: Path) -> None:
    """Draw losses, scores and learning rate over the epochs, or the iterations of a run that counts them.

    Args:
        rows: the rows of the training log (with a column "epoch" or "iter"), numbers or text as
            `csv.DictReader` gives them; a missing or empty cell is a gap.
        path: PNG to write.
    """
    unit, unit_name = ("iter", "iteration") if "iter" in rows[0] else ("epoch", "epoch")
    epochs = _column(rows, unit)
    with fonts():
        figure = Figure(figsize=(13.5, 4.0), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        loss, score, rate = figure.subplots(1, 3)
        _curves(loss, epochs, {"train": _column(rows, "train_loss"), "validation": _column(rows, "val_loss")})
        _curves(score, epochs, {name: _column(rows, name) for name in ("mIoU", "F1", "Acc")})
        _mark_best(score, epochs, _column(rows, "mIoU"), unit_name)
        _curves(rate, epochs, {"learning rate": _column(rows, "lr")})
        loss.set_ylim(bottom=0)
        low, high = score.get_ylim()
        score.set_ylim(max(0.0, low), min(1.0, high) if high > 1 else high)
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        for axes, title in ((loss, "Loss"), (score, "Validation scores"), (rate, "Learning rate")):
            _dress(axes, title, unit_name)
            if len(epochs) == 1:
                axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
        rate.get_legend().remove()
        save(figure, path)


def _column(rows: Sequence[Mapping], name: str) -> np.ndarray:
    cells = [row.get(name) for row in rows]
    return np.array([math.nan if cell in ("", None) else float(cell) for cell in cells])


def _curves(axes: Axes, epochs: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    dots = {"marker": "o", "markersize": 3.5} if len(epochs) <= 30 else {}
    for (name, values), color in zip(columns.items(), (BLUE, ORANGE, GREEN), strict=False):
        axes.plot(epochs, values, color=color, label=name, linewidth=1.7, solid_capstyle="round", **dots)


def _mark_best(axes: Axes, epochs: np.ndarray, values: np.ndarray, unit: str) -> None:
    if np.isnan(values).all():
        return
    best = int(np.nanargmax(values))
    axes.plot(
        epochs[best],
        values[best],
        "o",
        markersize=9,
        fillstyle="none",
        color=BLUE,
        label=f"best mIoU {values[best]:.4f} ({unit} {epochs[best]:.0f})",
    )


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, pad=26)
    axes.set_xlabel(unit, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=3)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=4,
        frameon=False,
        fontsize=8.5,
        borderaxespad=0.2,
        handlelength=1.3,
        columnspacing=1.1,
    )
