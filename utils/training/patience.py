"""Stopping early: when a column of the training log has not become better for a while."""

import math
from collections.abc import Iterable, Sequence

from nets.errors import UserError
from nets.registry import nearest

# Of these columns smaller values are better.
FALLING = ("lr", "train_loss", "val_loss", "train_loss_total", "seconds")


def without_progress(rows: Sequence[dict], column: str) -> int:
    """Return how many rows at the end of the log are not better than the best one before them.

    A missing value is never better.
    """
    sign = -1 if column in FALLING else 1
    best, where = -math.inf, -1
    for index, row in enumerate(rows):
        value = row[column]
        if value != "" and sign * value > best:  # NaN is not
            best, where = sign * value, index
    return len(rows) - 1 - where


def check_patience(patience: tuple[int, str] | None, columns: Iterable[str]) -> None:
    """Refuse a column that the log is not going to have.

    Raises:
        UserError: it is not going to have it.
    """
    if patience is None or patience[1] in (columns := list(columns)):
        return
    raise UserError(f"--PATIENCE: the log has no column {patience[1]!r}{nearest(patience[1], columns)}")
