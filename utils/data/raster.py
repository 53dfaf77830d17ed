"""Reading of rasters by window: TIFF, PNG and JPEG through rasterio (GDAL), NPY through a memory map.

An image comes with a mask of its valid pixels; a label comes as the numbers that stand in the file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from utils.data.findings import FileError
from utils.data.labels import pack_color, pack_colors
from utils.data.pieces import Source
from utils.data.raster_files import as_source, is_npy, native, open_npy, open_raster
from utils.data.raster_masks import colour_bands, valid_pixels

_EXACT_IN_FLOAT64 = 2**53


class Window(NamedTuple):
    """A rectangle of pixels: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class RasterInfo:
    """What the header of an image says, after palette, alpha and pages were interpreted.

    Attributes:
        path: The file; text where it is one of GDAL's virtual paths.
        height: Rows.
        width: Columns.
        bands: Bands that `read_image` returns (a palette counts as three, alpha as none).
        dtype: Name of the numpy dtype in native byte order.
        band_names: Description of each band, None where the file has none.
        crs: Coordinate reference system as WKT, or None.
        transform: Pixel to map coordinates, or None where the file is not georeferenced.
        nodata: The value that stands for "no data", or None.
        has_alpha: An alpha band was read as a mask of valid pixels.
        pieces: What is read where bands are selected or stacked; empty: the file as it is.
    """

    path: Path | str
    height: int
    width: int
    bands: int
    dtype: str
    band_names: tuple[str | None, ...]
    crs: str | None
    transform: Affine | None
    nodata: float | None
    has_alpha: bool = False
    pieces: Source = ()


def raster_info(path: Path | str) -> RasterInfo:
    """Read the header of an image.

    Raises:
        UserError: The file is missing, of an unknown kind, or cannot be opened.
    """
    path = as_source(path)
    if is_npy(path):
        array = open_npy(path)
        bands, height, width = array.shape
        names = (None,) * bands
        return RasterInfo(path, height, width, bands, native(array.dtype).name, names, None, None, None)
    with open_raster(path) as pages:
        return _info(path, pages)


def _info(path: Path, pages: list[rasterio.DatasetReader]) -> RasterInfo:
    first = pages[0]
    names = _band_names(pages)
    return RasterInfo(
        path=path,
        height=first.height,
        width=first.width,
        bands=len(names),
        dtype="uint8" if _is_palette(first) else first.dtypes[0],
        band_names=names,
        crs=first.crs.to_wkt() if first.crs else None,
        transform=None if first.transform.is_identity else first.transform,
        nodata=first.nodata,
        has_alpha=len(first.indexes) > len(colour_bands(first)),
    )


def read_image(
    path: Path | str, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, or the `bands` (from 0 on) of a window of it, in the file's own dtype.

    A palette is expanded to red, green and blue. An alpha band is dropped; where it is 0 the pixel is
    invalid. The fourth band of a TIFF is often called alpha by the program that wrote it, whatever it is:
    there it counts as alpha only if it holds nothing but 0 and its type's maximum. A TIFF of several equally
    sized one-band pages (what tifffile makes of an array (bands, H, W)) is read as bands. NPY: two axes are
    one band; of three axes the smaller of the first and the last is the band axis, the last one on a tie.

    Returns:
        The image (C, H, W), and `valid` (H, W): True where the file's mask says so and every band is finite.

    Raises:
        UserError: The file is missing, of an unknown kind, damaged, or has complex numbers.
    """
    path = as_source(path)
    if is_npy(path):
        return read_array(open_npy(path), window, bands)
    with open_raster(path) as pages:
        return read_pages(pages, window, bands)


def read_array(
    array: np.ndarray, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an opened NPY (C, H, W), or the `bands` (from 0 on) of a window of it, as `read_image` does."""
    rows, columns = _slices(_checked(window, array.shape[1:]))
    chosen = slice(None) if bands is None else list(bands)
    image = np.array(array[chosen, rows, columns], dtype=native(array.dtype), order="C")
    return _finite(image, np.ones(image.shape[1:], dtype=bool))


def read_pages(
    pages: Sequence[rasterio.DatasetReader], window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an opened raster, or the `bands` (from 0 on) of a window of it, as `read_image` does."""
    part = _rasterio_window(_checked(window, pages[0].shape))
    first = pages[0]
    if len(pages) > 1:
        chosen = pages if bands is None else [pages[band] for band in bands]
        image = np.stack([page.read(1, window=part) for page in chosen])
        return _finite(image, np.logical_or.reduce([valid_pixels(page, part) for page in chosen]))
    if not _is_palette(first):
        indices = colour_bands(first)
        if bands is None:
            return _finite(first.read(indices, window=part), valid_pixels(first, part))
        indices = [indices[band] for band in bands]
        return _finite(first.read(indices, window=part), valid_pixels(first, part, indices))
    valid = valid_pixels(first, part)
    table = np.zeros((np.iinfo(first.dtypes[0]).max + 1, 4), dtype=np.uint8)
    for index, color in first.colormap(1).items():
        table[index] = color
    image = np.moveaxis(table[first.read(1, window=part)], -1, 0)
    shown = list(range(3) if bands is None else bands)
    return np.ascontiguousarray(image[shown]), valid & (image[3] > 0)


def _finite(image: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the pixels that are NaN or infinite in a band out of the valid ones."""
    if image.dtype.kind == "f":
        valid &= np.isfinite(image).all(axis=0)
    return image, valid


def read_label(
    path: Path | str, window: Window | None = None, class_values: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Read a label raster, or a window of it: class numbers, for a palette PNG its indices.

    A PNG or TIFF of three bands of bytes, with or without alpha, holds colours; they are packed into numbers.

    Args:
        path: TIFF, PNG or NPY.
        window: The part to read; all of it by default.
        class_values: Values that are classes. A pixel with the file's no-data value is valid all the same
            where that value is among them (many tools write nodata=0 into maps whose class 0 is real).

    Returns:
        The label (H, W) of integers, and `valid` (H, W) by the file's mask; NaN in a float label is invalid.

    Raises:
        UserError: Unreadable file, JPEG, neither one band nor colours, or numbers that are not whole.
    """
    path = Path(path)
    nodata = None
    if is_npy(path):
        array = open_npy(path)
        _require_label(path, array.shape[0])
        rows, columns = _slices(_checked(window, array.shape[1:]))
        label = np.array(array[0, rows, columns], dtype=native(array.dtype))
        valid = np.ones(label.shape, dtype=bool)
    else:
        with open_raster(path) as pages:
            source = pages[0]
            if source.driver == "JPEG":
                raise FileError(
                    f"{path} is a JPEG: its compression changes the class numbers at every edge; "
                    "save labels as PNG, TIFF or NPY",
                    "JPEG label",
                    path,
                )
            bands = _label_bands(pages)
            _require_label(path, len(bands), source.dtypes[0])
            part = _rasterio_window(_checked(window, source.shape))
            label = source.read(bands, window=part)
            label = label[0] if len(bands) == 1 else pack_colors(label)
            valid = valid_pixels(source, part)
            nodata = _label_nodata(pages)
    if label.dtype.kind == "f":
        label, valid = _whole_numbers(path, label, valid)
    if nodata is not None and nodata in class_values:
        valid |= label == int(nodata)
    return label, valid


def label_info(path: Path | str) -> RasterInfo:
    """Read the header of a label: palettes are not expanded; three bands are colours, alpha is no band."""
    path = Path(path)
    if is_npy(path):
        return raster_info(path)
    with open_raster(path) as pages:
        count = len(_label_bands(pages))
        return replace(
            _info(path, pages), bands=count, band_names=(None,) * count, nodata=_label_nodata(pages)
        )


def read_palette(path: Path | str) -> dict[int, tuple[int, int, int]] | None:
    """Return the colour table of a raster, index -> (red, green, blue), or None where it has none."""
    path = Path(path)
    if is_npy(path):
        return None
    with open_raster(path) as pages:
        if not _is_palette(pages[0]):
            return None
        return {index: tuple(color[:3]) for index, color in pages[0].colormap(1).items()}


def _band_names(pages: list[rasterio.DatasetReader]) -> tuple[str | None, ...]:
    first = pages[0]
    if len(pages) > 1:
        return tuple(page.descriptions[0] for page in pages)
    bands = colour_bands(first)
    # A TIFF of three bytes per pixel calls itself RGB whatever its bands are; PNG and JPEG mean it.
    if _is_palette(first) or (first.driver in ("PNG", "JPEG") and len(bands) == 3):
        return ("red", "green", "blue")
    return tuple(first.descriptions[index - 1] for index in bands)


def _is_palette(source: rasterio.DatasetReader) -> bool:
    return source.count == 1 and source.colorinterp[0] == ColorInterp.palette


def _whole_numbers(path: Path, label: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a float label into int64; pixels that are not finite become invalid zeros."""
    valid = valid & np.isfinite(label)
    usable = np.isfinite(label) & (np.abs(label) < _EXACT_IN_FLOAT64)
    whole = np.where(usable, label, 0).astype(np.int64)
    wrong = valid & (whole != label)
    if wrong.any():
        held = f"{label[wrong][0]:g} in {np.count_nonzero(wrong)} pixels"
        text = f"{path} holds {held}; labels are whole numbers: class ids"
        raise FileError(text, "label numbers", path, held)
    return whole, valid


def _label_bands(pages: list[rasterio.DatasetReader]) -> list[int]:
    """Return the bands of a label: one of numbers or three of colours, without alpha."""
    return list(range(len(pages))) if len(pages) > 1 else colour_bands(pages[0])


def _label_nodata(pages: list[rasterio.DatasetReader]) -> float | None:
    nodata = pages[0].nodata
    colors = nodata is not None and len(_label_bands(pages)) == 3 and float(nodata).is_integer()
    return pack_color((nodata,) * 3) if colors else nodata


def _require_label(path: Path, count: int, dtype: str = "") -> None:
    if count != 1 and (count, dtype) != (3, "uint8"):
        has = f"{count} bands{f' of {dtype}' if dtype else ''}"
        raise FileError(
            f"{path} has {has}; a label is one band of class ids, or red, green and blue of 8 bits",
            "label bands",
            path,
            has,
        )


def _checked(window: Window | None, size: tuple[int, int]) -> Window:
    height, width = size
    if window is None:
        return Window(0, 0, height, width)
    if not (0 <= window.top <= height - window.height and 0 <= window.left <= width - window.width):
        raise ValueError(f"{window} does not lie inside a raster of {height} x {width} pixels")
    return window


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def _rasterio_window(window: Window) -> RasterioWindow:
    return RasterioWindow(window.left, window.top, window.width, window.height)
