"""Reading of rasters by window: TIFF, PNG and JPEG through rasterio (GDAL), NPY through a memory map.

An image comes with a mask of its valid pixels; a label comes as the numbers that stand in the file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from utils.data.ground_control import GroundControl, ground_control
from utils.data.label_bands import label_bands, label_nodata, require_label
from utils.data.labels import pack_colors, whole_numbers
from utils.data.open_files import kept_open
from utils.data.pictures import MOST_PIXELS, read_picture
from utils.data.pieces import Source
from utils.data.raster_files import as_source, is_npy, native, open_npy, open_raster, require_lossless
from utils.data.raster_masks import colour_bands, valid_pixels
from utils.data.window import Window, checked, rasterio_window, slices


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
        ground: Ground control points of a file without a transform, or None.
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
    ground: GroundControl | None = None


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
        ground=ground_control(first),
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
        The image (C, H, W), in any order of memory, and `valid` (H, W): True where the file's mask says so
        and every band is finite.

    Raises:
        UserError: The file is missing, of an unknown kind, damaged, or has complex numbers.
    """
    path = as_source(path)
    picture = read_picture(path, window)
    if picture is not None:
        return picture if bands is None else picture[list(bands)], np.ones(picture.shape[1:], dtype=bool)
    if is_npy(path):
        return read_array(open_npy(path), window, bands)
    with kept_open(path) as pages:
        if not _whole_first(pages[0]):
            return read_pages(pages, window, bands)
        image, valid = read_pages(pages, None, bands)
    part = slices(checked(window, valid.shape))
    return image[(slice(None), *part)], valid[part]


def check_image(path: Path | str) -> None:
    """Read an image's last row, for which a PNG or JPEG is decoded whole: damage shows.

    GDAL reads, which stops at what Pillow overlooks in a JPEG: bytes that are no picture in its midst.

    Raises:
        UserError: As `read_image`.
    """
    path = as_source(path)
    if is_npy(path):
        read_array(open_npy(path)[:, -1:])
        return
    with open_raster(path) as pages:
        read_pages(pages, Window(pages[0].height - 1, 0, 1, pages[0].width))


def read_array(
    array: np.ndarray, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an array (C, H, W), or the `bands` (from 0 on) of a window of it, as `read_image` does."""
    rows, columns = slices(checked(window, array.shape[1:]))
    chosen = slice(None) if bands is None else list(bands)
    image = np.array(array[chosen, rows, columns], dtype=native(array.dtype), order="C")
    return _finite(image, np.ones(image.shape[1:], dtype=bool))


def read_pages(
    pages: Sequence[rasterio.DatasetReader], window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an opened raster, or the `bands` (from 0 on) of a window of it, as `read_image` does."""
    part = rasterio_window(checked(window, pages[0].shape))
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
    # A JPEG is refused below.
    picture = read_picture(path, window, indices=True) if path.suffix.lower() == ".png" else None
    if picture is not None:
        label = picture[0] if len(picture) == 1 else pack_colors(picture)
        valid = np.ones(label.shape, dtype=bool)
    elif is_npy(path):
        array = open_npy(path)
        require_label(path, array.shape[0])
        rows, columns = slices(checked(window, array.shape[1:]))
        label = np.array(array[0, rows, columns], dtype=native(array.dtype))
        valid = np.ones(label.shape, dtype=bool)
    else:
        label, valid, nodata = _read_label_by_gdal(path, window)
    if label.dtype.kind == "f":
        label, valid = whole_numbers(path, label, valid)
    if nodata is not None and nodata in class_values:
        valid |= label == int(nodata)
    return label, valid


def _read_label_by_gdal(path: Path, window: Window | None) -> tuple[np.ndarray, np.ndarray, float | None]:
    with kept_open(path) as pages:
        source = pages[0]
        require_lossless(path, source)
        bands = label_bands(pages)
        require_label(path, len(bands), source.dtypes[0])
        window = checked(window, source.shape)
        whole = _whole_first(source)
        part = rasterio_window(checked(None, source.shape) if whole else window)
        label, valid = source.read(bands, window=part), valid_pixels(source, part)
        if whole:
            rows, columns = slices(window)
            label, valid = label[:, rows, columns], valid[rows, columns]
        return label[0] if len(bands) == 1 else pack_colors(label), valid, label_nodata(pages)


def label_info(path: Path | str) -> RasterInfo:
    """Read the header of a label: palettes are not expanded; three bands are colours, alpha is no band."""
    path = Path(path)
    if is_npy(path):
        return raster_info(path)
    with open_raster(path) as pages:
        count = len(label_bands(pages))
        return replace(
            _info(path, pages), bands=count, band_names=(None,) * count, nodata=label_nodata(pages)
        )


def read_palette(path: Path | str) -> dict[int, tuple[int, int, int]] | None:
    """Return the colour table of a raster, index -> (red, green, blue), or None where it has none."""
    path = Path(path)
    if is_npy(path):
        return None
    with open_raster(path) as pages:
        colors = pages[0].colormap(1) if _is_palette(pages[0]) else None
    return colors and {index: tuple(color[:3]) for index, color in colors.items()}


def _band_names(pages: list[rasterio.DatasetReader]) -> tuple[str | None, ...]:
    first = pages[0]
    if len(pages) > 1:
        return tuple(page.descriptions[0] for page in pages)
    bands = colour_bands(first)
    # A TIFF of three bytes per pixel calls itself RGB whatever its bands are; PNG and JPEG mean it.
    if _is_palette(first) or (first.driver in ("PNG", "JPEG") and len(bands) == 3):
        return ("red", "green", "blue")
    return tuple(first.descriptions[index - 1] for index in bands)


def _whole_first(source: rasterio.DatasetReader) -> bool:
    """Return whether all is read faster than a window: GDAL has a way of its own to decode a whole PNG."""
    return source.driver == "PNG" and source.height * source.width <= MOST_PIXELS


def _is_palette(source: rasterio.DatasetReader) -> bool:
    return source.count == 1 and source.colorinterp[0] == ColorInterp.palette
