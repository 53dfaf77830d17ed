"""What every command-line program does around its own work: errors, exit codes, output encoding."""

import sys
from collections.abc import Callable
from pathlib import Path

from nets.errors import UserError


def run_program(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run `main(argv)` and return the exit code.

    A `UserError` becomes one line on stderr and code 2, Ctrl-C becomes code 130. Every other exception is a
    defect and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a class name must not stop the run
            stream.reconfigure(errors="replace")
    program = Path(sys.argv[0]).name
    try:
        return main(argv) or 0
    except UserError as mistake:
        print(f"{program}: {_message(mistake)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped by Ctrl-C", file=sys.stderr)
        return 130


def _message(mistake: UserError) -> str:
    """Return the message alone: torch wraps what a worker process raises into that process's traceback."""
    text = str(mistake)
    return text.rsplit("UserError: ", 1)[-1].strip() if "Original Traceback" in text else text
