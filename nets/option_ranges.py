"""Which numbers an option of a builder takes, by its name and default: found before a layer fails on it."""

import inspect
import math
import re

# Positions in a list count from its end where negative.
_POSITION = re.compile(r"index|maps$|layers$")
_RATE = re.compile(r"dropout|drop_path")
# Layers accept these as 0 when they are built and fail in the first step.
_NEVER_ZERO = re.compile(
    r"dilations?$|pool_scales|filter_sizes|queries|^steps$|(mask|point)_channels|^heads$"
)


def refused_number(parameter: inspect.Parameter, value: object) -> str | None:
    """Return which numbers an option takes if `value` has another, else None.

    Args:
        parameter: the option in the builder's signature.
        value: of its type already; what is not a number or numbers is never refused.
    """
    name, numbers = parameter.name, [each for each in _as_tuple(value) if _is_number(each)]
    if any(not math.isfinite(each) for each in numbers):
        return "finite"
    if _RATE.search(name):
        return None if all(0 <= each < 1 for each in numbers) else "at least 0 and below 1"
    if _NEVER_ZERO.search(name) and 0 in numbers:
        return "1 or more"
    if (isinstance(value, tuple) and _POSITION.search(name)) or "index" in name:
        return None
    least = min([0, *(each for each in _as_tuple(parameter.default) if _is_number(each))])
    return None if all(each >= least for each in numbers) else f"{least} or more"


def _as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
