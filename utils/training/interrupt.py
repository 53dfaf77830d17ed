"""Leaving a run in good order: SIGTERM and Ctrl-C are noted, and the loop saves before it ends."""

import os
import signal
import threading
from types import FrameType, TracebackType

import torch

from utils.distributed import count, total
from utils.processes import is_launched
from utils.program import Stopped

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopSignals:
    """While it is entered, the first SIGTERM or Ctrl-C is only noted; a second one ends the program at once.

    Attributes:
        number: the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict = {}

    def __enter__(self) -> "StopSignals":
        # Python lets only the main thread handle signals; elsewhere they do what they always do.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A launcher passes on what a terminal has sent to all already, so there a second one means nothing.
        if self.number and not is_launched():
            raise Stopped(f"stopped at once by {NAMES[signal.Signals(number)]}", 128 + number)
        if not self.number:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nsaving after this iteration (once more: end at once)\n")
        self.number = number

    def agreed(self) -> int:
        """Return the signal that came to any of the processes, 0 for none; called by all of them."""
        if count() == 1:
            return self.number
        return int(total(torch.tensor([self.number]))) and (self.number or int(signal.SIGTERM))


def stopped(number: int, where: str, run: str) -> Stopped:
    """Return the exception that ends the program with a line that says how to go on.

    Args:
        number: of the signal.
        where: how far the run has come.
        run: its name.
    """
    name = NAMES[signal.Signals(number)]
    return Stopped(f"stopped by {name} {where}; go on with: python train.py --RESUME {run}", 128 + number)
