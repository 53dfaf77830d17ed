"""What every command-line program does around its own work: errors, exit codes, output encoding."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nets.errors import UserError
from utils.processes import is_launched, note_failure, quiet_beside_the_first

# The disk is full, or the user's share of it; Windows has no such shares.
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Stopped(BaseException):
    """The program was told to end, and has done what it had to do before; no failure, so no `Exception`.

    Args:
        message: one line.
        code: exit code of the program.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def run_program(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run `main(argv)` and return the exit code.

    A `UserError` becomes one line on stderr and code 2, a full disk one and code 1, Ctrl-C becomes code 130,
    `Stopped` has its own code. Every other exception is a defect and keeps its traceback. Of several
    processes only the first to fail says why.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a class name must not stop the run
            stream.reconfigure(errors="replace")
    # Read by torch when it is imported. A feature map then takes a few huge pages of Linux instead of
    # thousands of small ones; setting those up takes longer than a light network computes.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    program = Path(sys.argv[0]).name
    try:
        with quiet_beside_the_first():
            return main(argv) or 0
    except UserError as mistake:
        return _end(2, f"{program}: {_message(mistake)}")
    except Stopped as stop:
        return _end(stop.code, f"{program}: {stop}")
    except KeyboardInterrupt:
        return _end(130, f"{program}: stopped by Ctrl-C")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return _end(1, f"{program}: {_full(error)}")
        is_first, code = note_failure(1)
        if is_first:
            raise
        return code


def _end(code: int, line: str) -> int:
    """Say why the program ends, unless another process has failed before, and return the exit code."""
    is_first, code = note_failure(code)
    if is_first:
        # Another process may have left a progress bar on the line.
        print(f"\n{line}" if is_launched() else line, file=sys.stderr)
    return code


def _full(error: OSError) -> str:
    where = f"{error.filename} could not be written: " if error.filename else ""
    return f"{where}{error.strerror}; make room and start again, with --RESUME where the program has it"


def _message(mistake: UserError) -> str:
    """Return the message alone: torch wraps what a worker process raises into that process's traceback."""
    text = str(mistake)
    return text.rsplit("UserError: ", 1)[-1].strip() if "Original Traceback" in text else text
