"""An image that stays open while a scene is read window by window, by one thread or by several.

PNG and JPEG can only be decoded from the top: opened anew for every window, a scene of n strips would be
decoded n times. GDAL allows one thread per open file, so every thread opens its own.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio

from utils.data.pictures import read_picture
from utils.data.pieces import Piece, Source, join
from utils.data.raster import Window, read_array, read_pages
from utils.data.raster_files import as_source, is_npy, open_npy, open_pages, reading

_SEQUENTIAL = ("PNG", "JPEG")


class ImageReader:
    """Reads windows of an image as `read_source` does; a context manager.

    Args:
        source: the files of the image and their bands.
        threads: threads that share the reading of a window where the file has tiles or strips; 0 and 1 read
            in the calling thread.
    """

    def __init__(self, source: Source, threads: int = 1) -> None:
        self.source = source
        paths = [as_source(piece.path) for piece in source]
        # A network predicts from the values of a JPEG that it was trained on.
        opened = {path: open_npy(path) if is_npy(path) else read_picture(path) for path in paths}
        self._arrays = {path: array for path, array in opened.items() if array is not None}
        self._first = paths[0]
        self._opened: list[ExitStack] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and self._first not in self._arrays else None
        self._threads = max(1, threads)

    def __enter__(self) -> "ImageReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for stack in self._opened:
            stack.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (C, h, w) and `valid` (h, w) of a window.

        Raises:
            UserError: The file is damaged or, at an address, out of reach.
        """
        parts = self._parts(window)
        if self._pool is None or len(parts) == 1:
            return self._read(window)
        pieces = list(self._pool.map(self._read, parts))
        image = np.empty((len(pieces[0][0]), window.height, window.width), pieces[0][0].dtype)
        valid = np.empty((window.height, window.width), bool)
        for part, (piece, ok) in zip(parts, pieces, strict=True):
            rows = slice(part.top - window.top, part.top - window.top + part.height)
            columns = slice(part.left - window.left, part.left - window.left + part.width)
            image[:, rows, columns], valid[rows, columns] = piece, ok
        return image, valid

    def _read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        return join(self.source, [self._read_piece(piece, window) for piece in self.source])

    def _read_piece(self, piece: Piece, window: Window) -> tuple[np.ndarray, np.ndarray]:
        path = as_source(piece.path)
        if path in self._arrays:
            return read_array(self._arrays[path], window, piece.bands)
        pages = self._pages(path)
        with reading(path):
            return read_pages(pages, window, piece.bands)

    def _pages(self, path: Path | str) -> list[rasterio.DatasetReader]:
        """Return the datasets of a file in this thread."""
        if not hasattr(self._local, "pages"):
            self._local.pages = {}
        if path not in self._local.pages:
            stack = ExitStack()
            with self._lock:
                self._opened.append(stack)
            self._local.pages[path] = open_pages(path, stack)
        return self._local.pages[path]

    def _parts(self, window: Window) -> list[Window]:
        """Cut a window along the blocks of the first file, so that no two threads decode the same one."""
        if self._pool is None:
            return [window]
        first = self._pages(self._first)[0]
        if first.driver in _SEQUENTIAL:
            return [window]
        rows, columns = first.block_shapes[0]
        if columns >= first.width:
            cuts = _cuts(window.top, window.height, rows, self._threads)
            return [Window(top, window.left, size, window.width) for top, size in cuts]
        cuts = _cuts(window.left, window.width, columns, self._threads)
        return [Window(window.top, left, window.height, size) for left, size in cuts]


def _cuts(start: int, length: int, block: int, count: int) -> list[tuple[int, int]]:
    """Cut [start, start + length) into at most `count` pieces (first, length) at multiples of `block`."""
    blocks = -(-(start + length) // block) - start // block
    step = -(-blocks // count) * block
    firsts = [start, *range((start // block) * block + step, start + length, step)]
    return [(first, end - first) for first, end in zip(firsts, [*firsts[1:], start + length], strict=True)]
