"""A program that runs as one of several processes: only the first speaks, and of failures the first one.

The launcher (torchrun, or `utils.launch`) tells a process its number in the environment. Nothing
here imports torch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


def is_launched() -> bool:
    """Return whether a launcher has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def quiet_beside_the_first() -> Iterator[None]:
    """Drop what every process but the first prints."""
    if not is_launched() or os.environ["RANK"] == "0":
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield


def note_failure(code: int) -> tuple[bool, int]:
    """Return whether this process is the first of its machine to fail, and the first one's exit code.

    Args:
        code: exit code of this process.
    """
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not is_launched() or not report:
        return True, code
    note = Path(report).parent.parent / "failed"  # beside the folders that the launcher gives each process
    try:
        with note.open("x", encoding="utf-8") as file:
            file.write(str(code))
    except FileExistsError:
        first = note.read_text(encoding="utf-8")
        return False, int(first) if first else code
    except OSError:
        return True, code
    return True, code
