"""The training log: one CSV row per epoch, and the curves drawn from it."""

import csv
import sys
from pathlib import Path

from utils.evaluation.plots import draw_curves
from utils.files import replacing


class TrainingLog:
    """Rows of `{MODEL_TYPE}_training_log.csv`; the whole file is written anew each time.

    Args:
        folder: the run's folder.
        model: name of the network family.
        rows: rows of the run so far, when it is resumed.
    """

    def __init__(self, folder: Path, model: str, rows: list[dict] | None = None):
        self.path = folder / f"{model}_training_log.csv"
        self.curves = folder / "curves.png"
        self.rows = list(rows or [])

    def add(self, row: dict[str, int | float | str], *, write: bool = True) -> None:
        """Add a row and write the file, which of several processes only the first does."""
        self.rows.append({name: _cell(value) for name, value in row.items()})
        if not write:
            return
        try:
            with replacing(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
        except PermissionError as error:
            # A spreadsheet that has the file open locks it on Windows; the next epoch writes all rows.
            print(f"could not write the log now ({error}); trying again next epoch", file=sys.stderr)

    @property
    def last(self) -> int:
        """Epoch or iteration of the latest row, 0 where there is none."""
        return next(iter(self.rows[-1].values())) if self.rows else 0

    def draw(self) -> None:
        """Draw the curves."""
        draw_curves(self.rows, self.curves)


def _cell(value: int | float | str) -> int | float | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value
