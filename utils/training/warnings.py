"""Warnings of non-deterministic operations, gathered into one line."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PATTERN = re.compile(r"(\w+) does not have a deterministic implementation")


@contextmanager
def gathered_warnings() -> Iterator[set[str]]:
    """Collect which operations have no deterministic form and say so once, when the work ends.

    Yields:
        The names gathered so far; other warnings pass as they are.
    """
    names: set[str] = set()
    usual = warnings.showwarning

    def gather(message: Warning | str, *rest: object, **more: object) -> None:
        found = PATTERN.search(str(message))
        if found:
            names.add(found.group(1))
        else:
            usual(message, *rest, **more)

    warnings.showwarning = gather
    try:
        yield names
    finally:
        warnings.showwarning = usual
        if names:
            print(
                f"not deterministic on this device, so bits may differ: {', '.join(sorted(names))} "
                "(--DETERMINISTIC strict refuses them)",
                file=sys.stderr,
            )
