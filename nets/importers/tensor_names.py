"""What the names of a checkpoint's tensors tell."""

import re
from collections.abc import Iterable


def count(keys: Iterable[str], pattern: str) -> int:
    """Return how many parts there are, whose numbers from 0 are the first group of a pattern.

    The pattern is matched at the beginning of the names.
    """
    found = (re.match(pattern, key) for key in keys)
    return len({match[1] for match in found if match})
