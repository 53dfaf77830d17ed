"""How bands are brought to one scale: `--SCALING`; nothing here imports torch."""

from statistics import NormalDist
from typing import NamedTuple

_DEFAULT = (2.0, 98.0)


class Scaling(NamedTuple):
    """From which statistics a network's `mean` and `std` come.

    Both are a subtraction and a division inside the network, so that imported and exported networks compute
    alike. Values beyond the percentiles are for the same reason not clipped; they are merely larger.

    Attributes:
        percentiles: The lower and the upper one; None takes mean and standard deviation.
    """

    percentiles: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """The scaling in words."""
        if self.percentiles is None:
            return "mean and standard deviation"
        return "percentiles {:g} and {:g}".format(*self.percentiles)

    def normal(self, low: float, high: float) -> tuple[float, float]:
        """Return mean and standard deviation of the normal distribution with these percentiles.

        So values of a bell-shaped band are scaled as by mean and standard deviation, and a few glaring or
        wrong ones, as clouds, do not count.
        """
        lower, upper = (NormalDist().inv_cdf(percent / 100) for percent in self.percentiles)
        deviation = (high - low) / (upper - lower)
        return low - lower * deviation, deviation


def parse_scaling(text: str) -> Scaling:
    """Parse "standard", "percentile" or "percentile:1,99".

    Raises:
        ValueError: Anything else, or percentiles that are not two rising numbers between 0 and 100.
    """
    kind, colon, numbers = text.strip().lower().partition(":")
    if kind == "standard" and not colon:
        return Scaling()
    if kind not in ("percentile", "percentiles"):
        raise ValueError(f"{text!r} is given; standard, percentile and percentile:LOW,HIGH exist")
    if not colon:
        return Scaling(_DEFAULT)
    try:
        low, high = (float(part) for part in numbers.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 < low < high < 100:
        raise ValueError(f"{text!r} is given; two numbers LOW,HIGH with 0 < LOW < HIGH < 100 are wanted")
    return Scaling((low, high))
