"""Files that appear whole or not at all, in folders that can be written into."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nets.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block ends without an error."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(path: Path, flag: str) -> None:
    """Make a folder for results, and try whether a file can be made in it: better now than after the work.

    Args:
        path: the folder, which may be there.
        flag: that names it.

    Raises:
        UserError: it cannot be made or written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        try_to_write(path)
    except OSError as error:
        raise UserError(
            f"{flag} {path} cannot be made or written into ({error.strerror}); give another folder"
        ) from error


def try_to_write(folder: Path) -> None:
    """Make a file without a name in a folder; an OSError says why none can be made."""
    with tempfile.TemporaryFile(dir=folder):
        pass
