"""Work of many small parts in threads, with a bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count(workers: int | None) -> int:
    """Return how many threads read; None takes the processors, at most eight."""
    return max(1, workers if workers is not None else min(8, os.cpu_count() or 1))


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, title: str | None
) -> Iterator[Result]:
    """Yield function(item) in the items' order, computed by threads; the first failure stops all.

    Args:
        function: Called once per item.
        items: What to work on.
        workers: Threads; None takes the processors, at most eight.
        title: Shown before the bar; None shows no bar.
    """
    with ThreadPoolExecutor(max_workers=thread_count(workers)) as pool:
        results = pool.map(function, items)
        try:
            yield from tqdm(results, title, total=len(items), disable=title is None, leave=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
