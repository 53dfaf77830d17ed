"""Where in a scene its label values are."""

import numpy as np

from utils.data.labels import Classes


class Cells:
    """Pixels of each label value in each cell of a grid over a scene.

    Args:
        side: Side of a cell, pixels.
        rows: Rows of cells.
        columns: Columns of cells.
    """

    def __init__(self, side: int, rows: int, columns: int) -> None:
        self.side = side
        self.shape = (rows, columns)
        self.counts: dict[int, np.ndarray] = {}
        self.hidden = np.zeros(self.shape, dtype=np.int32)

    def add(
        self, top: int, label: np.ndarray, valid: np.ndarray, values: list[int], hidden: np.ndarray | None
    ) -> None:
        """Count a strip of whole rows of cells.

        Args:
            top: Its first row of pixels.
            label: Values (h, w).
            valid: Valid pixels (h, w).
            values: The values that occur, in rising order.
            hidden: Pixels (h, w) that hold the no-data value and are not valid.
        """
        first, columns = top // self.side, self.shape[1]
        rows = -(-label.shape[0] // self.side)
        down, across = (np.arange(length, dtype=np.int64) // self.side for length in label.shape)
        cell = down[:, None] * columns + across
        if values:
            code = _places(label[valid], values) * (rows * columns) + cell[valid]
            counts = np.bincount(code, minlength=len(values) * rows * columns).reshape(-1, rows, columns)
            for value, part in zip(values, counts, strict=True):
                whole = self.counts.setdefault(value, np.zeros(self.shape, dtype=np.int32))
                whole[first : first + rows] += part.astype(np.int32)
        if hidden is not None:
            counts = np.bincount(cell[hidden], minlength=rows * columns).reshape(rows, columns)
            self.hidden[first : first + rows] += counts.astype(np.int32)

    def per_class(self, classes: Classes, nodata: int | None) -> np.ndarray:
        """Return the pixels of each class in each cell (K, rows, columns)."""
        result = np.zeros((classes.num_classes, *self.shape), dtype=np.int64)
        for value, count in self.counts.items():
            if value in classes.table and value not in classes.ignored:
                result[classes.table[value]] += count
        if nodata in classes.table:
            result[classes.table[nodata]] += self.hidden
        return result


def _places(label: np.ndarray, values: list[int]) -> np.ndarray:
    """Return the place in `values` of each label value."""
    first, last = values[0], values[-1]
    if last - first > 2**16:
        return np.searchsorted(np.asarray(values, dtype=label.dtype), label)
    table = np.zeros(last - first + 1, dtype=np.int64)
    table[np.asarray(values) - first] = np.arange(len(values))
    return table[label if first == 0 else label.astype(np.int64) - first]
