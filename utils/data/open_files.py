"""Scenes that stay open while one window after the other is read from them.

GDAL keeps the blocks that it decoded as long as a file is open: a window that overlaps an earlier one is
mostly there. GDAL allows one thread per open file, and a file that was opened before a fork shares its place
of reading with the parent: every thread and every process opens its own.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rasterio

from utils.data.raster_files import open_pages, reading
from utils.data.window import LARGE

# Scenes that a thread keeps open.
_MOST_FILES = 8
# Each worker has a cache of decoded blocks of its own; GDAL's default is a twentieth of the memory, for each.
os.environ.setdefault("GDAL_CACHEMAX", "256")  # MB

_Pages = list[rasterio.DatasetReader]


class _OpenFiles(threading.local):
    """What a thread has open, the one that was used last at the end."""

    def __init__(self) -> None:
        self.files: OrderedDict[tuple[str, int, int], tuple[ExitStack, _Pages]] = OrderedDict()


_open_files = _OpenFiles()
_inherited: list[_OpenFiles] = []


@contextmanager
def kept_open(path: Path | str) -> Iterator[_Pages]:
    """Open a raster as `open_raster` does; a scene is still open at the next call, until its file changes."""
    files = _open_files.files
    with reading(path):
        key = _key(path)
        if key in files:
            files.move_to_end(key)
            yield files[key][1]
            return
        with ExitStack() as stack:
            pages = open_pages(path, stack)
            if key is not None and pages[0].height * pages[0].width > LARGE:
                files[key] = stack.pop_all(), pages
                while len(files) > _MOST_FILES:
                    files.popitem(last=False)[1][0].close()
            yield pages


def _key(path: Path | str) -> tuple[str, int, int] | None:
    """Return what tells a state of a file from others; None for virtual paths, whose state is not known."""
    if isinstance(path, str):
        return None
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def _forget() -> None:
    """Let a forked process open its own files; those of the parent are neither used nor closed."""
    global _open_files
    _inherited.append(_open_files)
    _open_files = _OpenFiles()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
