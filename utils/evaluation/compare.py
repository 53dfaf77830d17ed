"""Several runs beside each other: scores, sizes and speeds, as a table, plots and a page."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nets import create_model
from nets.errors import UserError
from utils.checkpoint import read_checkpoint
from utils.evaluation.compare_plots import draw_classes, draw_curves, draw_scores
from utils.evaluation.html import facts, page, picture, table, write_page
from utils.evaluation.report import align, write_csv

HEAD = (
    "run",
    "network",
    "backbone",
    "mIoU",
    "Acc",
    "best at",
    "epochs",
    "parameters",
    "images/s",
    "hours",
    "batch",
    "crop",
)


@dataclass(frozen=True)
class Run:
    """What a run's folder says of it.

    Attributes:
        name: of the folder.
        metrics: of the best epoch, as in its checkpoint.
        classes: their names.
        network, backbone: how it was built.
        best: epoch of the best mIoU, with a fraction where the run counts iterations.
        epochs: passes over the training tiles.
        parameters: of the network.
        speed: training images per second with everything that belongs to a run; NaN where it is not known.
        hours: time of all epochs.
        batch: images per step.
        crop: (height, width) in pixels.
        curve: (epoch, mIoU) after each validation.
    """

    name: str
    metrics: dict
    classes: tuple[str, ...]
    network: str
    backbone: str
    best: float
    epochs: float
    parameters: int
    speed: float
    hours: float
    batch: int
    crop: tuple[int, int]
    curve: tuple[tuple[float, float], ...]

    def row(self) -> list:
        """Return the cells below `HEAD`."""
        return [
            self.name,
            self.network,
            self.backbone,
            self.metrics["mIoU"],
            self.metrics["Acc"],
            f"{self.best:g}",
            f"{self.epochs:g}",
            self.parameters,
            "" if math.isnan(self.speed) else f"{self.speed:.1f}",
            f"{self.hours:.2f}",
            self.batch,
            f"{self.crop[0]}x{self.crop[1]}",
        ]


def find_runs(given: Sequence[Path]) -> list[Path]:
    """Return the folders of runs among those given or directly in them, without doubles.

    Raises:
        UserError: one of them is no run and holds none.
    """
    found = []
    for folder in given:
        if (folder / "best.pth").is_file():
            runs = [folder]
        else:
            runs = sorted(path.parent for path in folder.glob("*/best.pth"))
        if not runs:
            raise UserError(f"{folder} is no run of train.py and holds none; a run has a file best.pth")
        found += runs
    return list({folder.resolve(): folder for folder in found}.values())


def read_run(folder: Path) -> Run:
    """Return what a run's folder says of it.

    Raises:
        UserError: a file is missing or not what train.py writes.
    """
    best, rows = read_checkpoint(folder / "best.pth"), _read_log(folder)
    last = read_checkpoint(folder / "last.pth") if (folder / "last.pth").is_file() else {}
    blueprint, flags = best["blueprint"], best["options"]
    per_epoch = last.get("training", {}).get("iterations_per_epoch", math.nan)
    unit = "iter" if "iter" in rows[0] else "epoch"
    # What the log counts, in epochs.
    size = 1 if unit == "epoch" else 1 / per_epoch
    seconds = sum(float(row["seconds"]) for row in rows)
    epochs = float(rows[-1][unit]) * size
    batch = flags["BATCH_SIZE"] * (flags.get("ACCUMULATE") or 1)
    with torch.device("meta"):
        network = create_model(blueprint["name"], **blueprint["options"])
    return Run(
        name=folder.resolve().name,
        metrics=best["metrics"],
        classes=tuple(best["classes"]["names"]),
        network=blueprint["name"],
        backbone=str(blueprint["options"].get("backbone", "")),
        best=round(best[unit] * size, 2),
        epochs=round(epochs, 2),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        speed=epochs * per_epoch * batch / seconds if seconds else math.nan,
        hours=seconds / 3600,
        batch=batch,
        crop=tuple(best["crop_size"]),
        curve=tuple((float(row[unit]) * size, float(row["mIoU"])) for row in rows),
    )


def _read_log(folder: Path) -> list[dict]:
    logs = list(folder.glob("*_training_log.csv"))
    rows = []
    if logs:
        with logs[0].open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    if not rows:
        raise UserError(f"{folder} has no training log with a row; has the run been validated?")
    return rows


def console_table(runs: Sequence[Run]) -> list[str]:
    """Return aligned lines, the best run first."""
    rows = [[_plain(cell) for cell in run.row()] for run in ranked(runs)]
    return align([list(HEAD), *rows])


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, that with the highest mIoU first."""
    return sorted(runs, key=lambda run: -run.metrics["mIoU"])


def class_rows(runs: Sequence[Run]) -> list[list]:
    """Return a heading and a row for each class: the IoU in each run, and the best less the worst.

    A class that a run does not have, or that is absent from its validation, is None there; so is the
    difference where fewer than two runs have a value.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.classes))
    rows = [["class", *(run.name for run in runs), "difference"]]
    for name in names:
        values = [_iou(run, name) for run in runs]
        known = [value for value in values if value is not None]
        rows.append([name, *values, max(known) - min(known) if len(known) > 1 else None])
    return rows


def _iou(run: Run, name: str) -> float | None:
    return run.metrics["per_class"]["IoU"][run.classes.index(name)] if name in run.classes else None


def write_comparison(runs: Sequence[Run], output: Path) -> None:
    """Write comparison.csv, classes.csv, their plots and comparison.html into a folder, which is made."""
    output.mkdir(parents=True, exist_ok=True)
    runs = ranked(runs)
    rows, classes = [list(HEAD), *(run.row() for run in runs)], class_rows(runs)
    write_csv(output / "comparison.csv", [[_exact(cell) for cell in row] for row in rows])
    write_csv(output / "classes.csv", [[_exact(cell) for cell in row] for row in classes])
    draw_scores(runs, output / "scores.png")
    draw_curves(runs, output / "curves.png")
    draw_classes(classes, output / "classes.png")
    first = runs[0]
    sections = [
        (
            "",
            facts([("runs", len(runs)), ("best", first.name), ("its mIoU", f"{first.metrics['mIoU']:.4f}")]),
        ),
        ("Runs", table(rows, flush_left=3)),
        ("mIoU against size and speed", picture(output / "scores.png")),
        ("mIoU over the epochs", picture(output / "curves.png")),
        ("IoU of each class", picture(output / "classes.png") + table(classes)),
    ]
    text = page("Comparison of runs", "images/s: of training, with validation and files", sections)
    write_page(output / "comparison.html", text)


def _plain(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _exact(cell: object) -> object:
    if cell is None:
        return ""
    return f"{cell:.6f}" if isinstance(cell, float) else cell
