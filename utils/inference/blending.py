"""Weights that blend overlapping windows into one map without seams, and the sums of what was weighted.

A window's weight is the product of a vertical and a horizontal profile. They are divided, for each axis on
its own, by the sum over all windows that cover a position. The weights of a pixel then sum to one, so blended
probabilities are final without a division, and no map of weights has to be kept.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from nets.errors import UserError

# Below this part of the peak a profile weighs no less, so that the only window of a corner counts fully. A
# thousandth was seen: networks are at their worst at a window's end, where the others weigh little too.
_FLOOR = 1e-6


def _gaussian(size: int) -> np.ndarray:
    """A bell with a standard deviation of an eighth of the window, lowered to begin and end at zero."""
    distance = np.arange(size) - (size - 1) / 2
    bell = np.exp(-0.5 * (distance / (size / 8)) ** 2)
    return np.maximum(bell - bell[0], _FLOOR)


def _cosine(size: int) -> np.ndarray:
    """A raised cosine: one in the middle, nearly zero at the border."""
    position = (np.arange(size) + 0.5) / size
    return np.maximum(0.5 - 0.5 * np.cos(2 * np.pi * position), _FLOOR)


def _flat(size: int) -> np.ndarray:
    """The plain mean of all windows."""
    return np.ones(size)


def _nearest(size: int) -> np.ndarray:
    """The distance to the border: the largest belongs to the window whose middle is nearest."""
    return (np.minimum(np.arange(size), np.arange(size)[::-1]) + 1).astype(float)


PROFILES: dict[str, Callable[[int], np.ndarray]] = {
    "gaussian": _gaussian,
    "cosine": _cosine,
    "flat": _flat,
    "none": _nearest,
}


def profile(size: int, blend: str = "gaussian") -> np.ndarray:
    """Return the weights (size,) along one side of a window, all above zero.

    Raises:
        UserError: an unknown kind of blending.
    """
    if blend not in PROFILES:
        raise UserError(f"blending {blend!r} is given; {', '.join(PROFILES)} exist")
    return PROFILES[blend](size)


def axis_weights(starts: Sequence[int], size: int, length: int, blend: str = "gaussian") -> np.ndarray:
    """Return the weights (windows, size) along one axis, float32.

    Args:
        starts: first position of each window, in order.
        size: side of a window, pixels.
        length: side of the scene, pixels; the windows cover all of it.
        blend: a key of `PROFILES`; "none" gives each position wholly to the window whose middle is nearest.

    Returns:
        Weights that sum to one over the windows at every position.
    """
    shape = profile(size, blend)
    if blend == "none":
        best = np.zeros(length)
        for start in starts:
            best[start : start + size] = np.maximum(best[start : start + size], shape)
        owned = [shape == best[start : start + size] for start in starts]
        taken = np.zeros(length, bool)
        for start, mine in zip(starts, owned, strict=True):  # of two that are equally near, the first
            part = taken[start : start + size]
            mine &= ~part
            part |= mine
        return np.stack(owned).astype(np.float32)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += shape
    return np.stack([shape / total[start : start + size] for start in starts]).astype(np.float32)


class Blender:
    """Adds up weighted windows that come row by row, from left to right, and gives out what is final.

    Final is a block as soon as no later window reaches it. Only two sums wait: of the columns that the next
    windows of the row share, and of the rows that the next rows of windows share (over the full width).
    Memory is the overlap times the width, on the device where the probabilities are.

    Args:
        tops: first row of each row of windows.
        lefts: first column of each column of windows.
        size: (height, width) of a window, pixels.
        scene: (height, width) of the scene, pixels.
        blend: a key of `PROFILES`.
        first: row of windows to begin with; nothing is known of those above.
    """

    def __init__(
        self,
        tops: Sequence[int],
        lefts: Sequence[int],
        size: tuple[int, int],
        scene: tuple[int, int],
        blend: str,
        first: int = 0,
    ) -> None:
        self.tops, self.lefts, self.size, self.first = tops, lefts, size, first
        self.ends = (*tops[1:], scene[0]), (*lefts[1:], scene[1])
        self.down = torch.from_numpy(axis_weights(tops, size[0], scene[0], blend))
        self.across = torch.from_numpy(axis_weights(lefts, size[1], scene[1], blend))
        self.side: torch.Tensor | None = None
        self._place: torch.Tensor | None = None
        self.below: torch.Tensor | None = None

    @property
    def waiting_rows(self) -> int:
        """The most rows of sums that wait for the next row of windows."""
        return max((self.size[0] - (b - a) for a, b in pairwise(self.tops)), default=0)

    def block(self, row: int, column: int) -> tuple[slice, slice]:
        """Return the rows and columns of the scene that are final after a window."""
        return slice(self.tops[row], self.ends[0][row]), slice(self.lefts[column], self.ends[1][column])

    @torch.inference_mode()
    def add(self, row: int, column: int, probabilities: torch.Tensor | None) -> torch.Tensor | None:
        """Add a window and return its final block.

        Args:
            row: number of the row of windows.
            column: number of the window in it.
            probabilities: (K, h, w), overwritten; None for a window without a valid pixel, whose block has
                none either, so that its sums do not matter.

        Returns:
            Blended probabilities (K, rows, columns) of `block`, a view of `probabilities`; or None.
        """
        if probabilities is None or column == 0:
            self.side = None
        if probabilities is None:
            return None
        if self.below is None:
            self._start(probabilities)
        rows, columns = self.block(row, column)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        probabilities *= self.down[row][:, None] * self.across[column]
        if self.side is not None:
            probabilities[:, :, : self.side.shape[2]] += self.side
        self.side = self._keep(probabilities[:, :, width:]) if width < self.size[1] else None
        ready = probabilities[:, :, :width]
        if row > self.first:
            above = self.ends[0][row - 1] - self.tops[row - 1]
            known = self.size[0] - above
            ready[:, :known] += self.below[:, :known, columns]
        self.below[:, : self.size[0] - height, columns] = ready[:, height:]
        return ready[:, :height]

    def _keep(self, columns: torch.Tensor) -> torch.Tensor:
        """Copy columns to the one place for them: a new one for every window costs as much as the sum."""
        if self._place is None:
            widest = max(self.size[1] - (b - a) for a, b in pairwise(self.lefts))
            self._place = columns.new_empty((*columns.shape[:2], widest))
        return self._place[:, :, : columns.shape[2]].copy_(columns)

    def _start(self, like: torch.Tensor) -> None:
        self.below = like.new_zeros((like.shape[0], self.waiting_rows, self.ends[1][-1]))
        self.down, self.across = self.down.to(like.device), self.across.to(like.device)
