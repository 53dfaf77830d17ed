"""Opening of raster files, with every failure told as one line that names the file."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from nets.errors import UserError
from utils.data.findings import FileError

RASTER_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy")
# A VRT is read where it is named, never searched for: it mostly lies beside the tiles that it joins.
_READABLE = (*RASTER_SUFFIXES, ".vrt")
_DRIVERS = ("GTiff", "PNG", "JPEG", "VRT")
_PNG_TAIL = 4096  # bytes; some programs append notes of their own after the end chunk
# `warnings.catch_warnings` changes the state of the whole process: two threads must not be inside it at once.
_WARNINGS_LOCK = threading.Lock()


def is_virtual(source: Path | str) -> bool:
    """Tell whether a source is one of GDAL's virtual paths or an address, and no file of this machine."""
    text = str(source)
    return isinstance(source, str) and (text.startswith("/vsi") or "://" in text)


def as_source(source: Path | str) -> Path | str:
    """Return a file as a path, and a virtual path as text: a path would merge the slashes of `https://`."""
    return source if is_virtual(source) else Path(source)


def is_npy(path: Path | str) -> bool:
    """Tell whether an existing raster is an NPY file."""
    if is_virtual(path):
        return False
    suffix = path.suffix.lower()
    if suffix not in _READABLE:
        raise UserError(f"{path} is not a raster that can be read; allowed are {', '.join(_READABLE)}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path and the spelling of the name")
    return suffix == ".npy"


def native(dtype: np.dtype) -> np.dtype:
    """Return the dtype in native byte order; truth values count as bytes."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def open_npy(path: Path) -> np.ndarray:
    """Map an NPY file as (bands, H, W) without reading it."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({_one_line(error)}); save it again as NPY") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of arrays; save one array as NPY")
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or array.size == 0:
        raise UserError(
            f"{path} has shape {array.shape} and dtype {array.dtype}; "
            "allowed are (H, W), (H, W, bands) or (bands, H, W) of integers or floats"
        )
    if array.ndim == 2:
        return array[None]
    return array if array.shape[0] < array.shape[2] else np.moveaxis(array, 2, 0)


@contextmanager
def open_raster(path: Path | str) -> Iterator[list[rasterio.DatasetReader]]:
    """Open a raster as one dataset, or as one per page of a TIFF stack; name the file in every failure."""
    with ExitStack() as stack, reading(path):
        yield open_pages(path, stack)


def open_pages(path: Path | str, stack: ExitStack) -> list[rasterio.DatasetReader]:
    """Open a raster as `open_raster` does; `stack` closes it."""
    with reading(path):
        first = stack.enter_context(open_quietly(path))
        _require_plain(path, first)
        pages = [stack.enter_context(open_quietly(name)) for name in _page_names(first)]
        if any((page.count, page.shape, page.dtypes) != (1, first.shape, first.dtypes) for page in pages):
            pages = []
        return pages or [first]


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Read from a raster in the block; its failures are told as one line that names it."""
    try:
        # Said outright, a truncated JPEG is an error; left to its default GDAL advises to overlook it.
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
            yield
    except (RasterioError, OSError) as error:
        reason = _one_line(error.__cause__ or error)
        if is_virtual(path):
            raise UserError(f"{path} cannot be read ({reason}); check the address and the access") from error
        raise UserError(f"{path} cannot be read, it may be damaged ({reason}); replace it") from error


def _require_plain(path: Path | str, source: rasterio.DatasetReader) -> None:
    if source.driver == "PNG" and not is_virtual(path):
        _require_whole_png(path)
    if source.driver not in _DRIVERS:
        raise UserError(f"{path} is in fact of the kind {source.driver}; save it as TIFF, PNG, JPEG or NPY")
    if len(set(source.dtypes)) > 1 or source.dtypes[0].startswith("complex"):
        raise UserError(
            f"{path} holds {', '.join(source.dtypes)}; its bands must share one dtype of integers or floats"
        )


def require_lossless(path: Path, source: rasterio.DatasetReader) -> None:
    """Refuse a label that is a JPEG."""
    if source.driver == "JPEG":
        raise FileError(
            f"{path} is a JPEG: its compression changes the class numbers at every edge; "
            "save labels as PNG, TIFF or NPY",
            "JPEG label",
            path,
        )


def _require_whole_png(path: Path) -> None:
    """Refuse a PNG without its end chunk: GDAL fills what is missing with zeros and reports nothing."""
    if not is_whole_png(path):
        raise UserError(
            f"{path} cannot be read, it may be damaged (the end of the PNG is missing); replace it"
        )


def is_whole_png(path: Path) -> bool:
    """Tell whether a PNG has its end chunk."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _PNG_TAIL))
        return b"IEND" in file.read()


def open_quietly(name: Path | str) -> rasterio.DatasetReader:
    """Open a raster without GDAL's warning that a plain picture has no coordinates."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(name)


def _page_names(source: rasterio.DatasetReader) -> list[str]:
    """Return GDAL's names of the pages of a stack of one-band pages, in their order."""
    if source.driver != "GTiff" or source.count != 1 or len(source.subdatasets) < 2:
        return []
    return sorted(source.subdatasets, key=lambda name: int(re.match(r"GTIFF_DIR:(\d+):", name).group(1)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
