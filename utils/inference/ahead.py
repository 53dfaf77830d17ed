"""Work that threads do ahead of, or behind, the thread that runs the network."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int = 1) -> Iterator[Result]:
    """Yield `function(item)` in order, while as many threads compute the next ones; 0 computes none ahead."""
    if threads < 1:
        yield from map(function, items)
        return
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def attempted(function: Callable[[Item], Result], item: Item) -> Callable[[], Result]:
    """Call the function and return what gives its result, or raises its error, when called."""
    try:
        result = function(item)
    except Exception as caught:
        error = caught  # the name of the clause ends with it

        def fail() -> Result:
            raise error

        return fail
    return lambda: result


class Behind:
    """A thread that does jobs in their order; a context manager that ends when all are done.

    Args:
        depth: jobs that may wait; a further one makes the caller wait.
    """

    def __init__(self, depth: int = 8) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Behind":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def do(self, job: Callable[[], object]) -> None:
        """Hand over a job; an error of an earlier one is raised here."""
        self._raise()
        self._jobs.put(job)

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            if failed:  # what comes after a failed job is not done, only taken, so that nobody waits
                continue
            try:
                job()
            except BaseException as error:  # whatever it is belongs to the thread that waits for the work
                self._error, failed = error, True
