"""Weights that blend overlapping windows into one map without seams.

A window's weight is the product of a vertical and a horizontal profile. They are divided, for each axis on
its own, by the sum over all windows that cover a position. The weights of a pixel then sum to one, so blended
probabilities are final without a division, and no map of weights has to be kept.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nets.errors import UserError

# Below this part of the peak a gaussian weighs no less, so that the only window of a corner counts fully.
_FLOOR = 1e-3


def _gaussian(size: int) -> np.ndarray:
    """A bell with a standard deviation of an eighth of the window."""
    distance = np.arange(size) - (size - 1) / 2
    return np.maximum(np.exp(-0.5 * (distance / (size / 8)) ** 2), _FLOOR)


def _flat(size: int) -> np.ndarray:
    """The plain mean of all windows."""
    return np.ones(size)


PROFILES: dict[str, Callable[[int], np.ndarray]] = {"gaussian": _gaussian, "flat": _flat}


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
        starts: first position of each window.
        size: side of a window, pixels.
        length: side of the scene, pixels; the windows cover all of it.
        blend: a key of `PROFILES`.

    Returns:
        Weights that sum to one over the windows at every position.
    """
    shape = profile(size, blend)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += shape
    return np.stack([shape / total[start : start + size] for start in starts]).astype(np.float32)
