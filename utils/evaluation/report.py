"""Scores as text and as CSV."""

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from utils.evaluation.boundary import BoundaryIoU
from utils.evaluation.metrics import OVERALL, PER_CLASS, PRESENCE, Metrics
from utils.files import replacing

ABSENT = "-"


def write_csv(path: Path, rows: Iterable[Sequence]) -> None:
    """Write rows of cells as UTF-8 CSV; the file appears whole or not at all."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def text_width(text: str) -> int:
    """Return the columns that a text takes on a console: Chinese characters take two, accents none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    combining = sum(unicodedata.combining(character) > 0 for character in text)
    return len(text) + wide - combining


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines of equal columns, the first column flush left, the others flush right."""
    widths = [max(text_width(cell) for cell in column) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        gaps = [" " * (width - text_width(cell)) for cell, width in zip(row, widths, strict=True)]
        return "  ".join(
            [row[0] + gaps[0], *(gap + cell for cell, gap in zip(row[1:], gaps[1:], strict=True))]
        )

    return [line(row).rstrip() for row in rows]


def table(metrics: Metrics, class_names: Sequence[str], boundary: BoundaryIoU | None = None) -> str:
    """Return the scores per class as an aligned table, then each overall score on its own line.

    The lines of the overall scores are `name value` with four decimals, e.g. `mIoU 0.4321`, so that a
    script finds them.
    """
    rows = [["class", *PER_CLASS, "pixels"]]
    for index, name in zip(range(len(metrics.pixels)), class_names, strict=True):
        scores = [metrics.per_class[score][index] for score in PER_CLASS]
        cells = [ABSENT if score is None else f"{score:.4f}" for score in scores]
        rows.append([name, *cells, f"{metrics.pixels[index]:,}"])
    lines = align(rows)
    lines.insert(1, "-" * max(text_width(line) for line in lines))
    if metrics.absent:
        names = ", ".join(class_names[index] for index in metrics.absent)
        lines += ["", f"neither in truth nor in prediction, left out of the means: {names}"]
    lines += ["", *(f"{name} {value:.4f}" for name, value in metrics.overall().items())]
    if boundary:
        lines.append(f"BoundaryIoU {boundary.compute()[0]:.4f}")
    return "\n".join(lines)


def write_metrics(
    metrics: Metrics, class_names: Sequence[str], path: Path, boundary: BoundaryIoU | None = None
) -> None:
    """Write a row per class, then a row per overall score with its number in the column `value`.

    The scores of an absent class are empty cells; `pixels` counts the true pixels.
    """
    mean, outlines = boundary.compute() if boundary else (None, ())
    more = ["BoundaryIoU"] if boundary else []
    rows: list[list] = [["class", *PER_CLASS, *more, "pixels", "value"]]
    for index, name in zip(range(len(metrics.pixels)), class_names, strict=True):
        cells = [_number(metrics.per_class[score][index]) for score in PER_CLASS]
        cells += [_number(outlines[index])] if boundary else []
        rows.append([name, *cells, metrics.pixels[index], ""])
    blank = [""] * (len(PER_CLASS) + len(more) + 1)
    overall = {**metrics.overall(), **dict.fromkeys(more, mean)}
    rows += [[name, *blank, _number(value)] for name, value in overall.items()]
    write_csv(path, rows)


def write_confusion(matrix: Tensor, class_names: Sequence[str], path: Path) -> None:
    """Write the (K, K) pixel counts, rows truth, columns prediction, with the class names on both sides.

    Of several labels, (K, 2, 2), a row has the four counts of a class, as `PRESENCE` calls them.
    """
    head = ["truth \\ prediction", *class_names]
    if matrix.dim() == 3:
        head, matrix = ["class", *PRESENCE], matrix.flip(1, 2).flatten(1)
    rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
    write_csv(path, [head, *rows])


def write_images(
    names: Sequence[str],
    scores: Sequence[Metrics],
    class_names: Sequence[str],
    path: Path,
    what: str = "image",
) -> None:
    """Write one row per image or scene: its scores, valid pixels and the IoU of each class that occurs."""
    first = ("mIoU", "Acc")
    others = [name for name in OVERALL if name not in first]
    rows: list[list] = [[what, *first, "pixels", *others, *(f"IoU_{name}" for name in class_names)]]
    for name, score in zip(names, scores, strict=True):
        iou = [_number(value) for value in score.per_class["IoU"]]
        cells = {key: _number(value) for key, value in score.overall().items()}
        means = [cells[key] for key in first], [cells[key] for key in others]
        rows.append([name, *means[0], sum(score.pixels), *means[1], *iou])
    write_csv(path, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
