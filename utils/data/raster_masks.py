"""Which bands of a raster are data, and which of its pixels are valid."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from utils.data.raster_files import as_source, open_raster

# Side of the thinned-out band that tells a mask from data, pixels.
_THINNED = 256


def colour_bands(source: rasterio.DatasetReader) -> list[int]:
    """Return the (one-based) indices of all bands but a true alpha."""
    return [
        index for index in source.indexes if index not in _called_alpha(source) or not _is_mask(source, index)
    ]


def class_bands(source: rasterio.DatasetReader) -> list[int]:
    """Return the (one-based) indices of the bands of a label whose bands are classes.

    All but a PNG's alpha: the fourth band of a TIFF is often called alpha, whatever it is.
    """
    return colour_bands(source) if source.driver == "PNG" else list(source.indexes)


def valid_bands(source: rasterio.DatasetReader, part: RasterioWindow) -> np.ndarray:
    """Return (bands, h, w), True where the file's own masks say that a class band is valid."""
    bands = class_bands(source)
    if any(index in bands for index in _called_alpha(source)):
        # The file's mask would be that band.
        image, nodata = source.read(bands, window=part), source.nodata
        return np.ones(image.shape, dtype=bool) if nodata is None else image != nodata
    return source.read_masks(bands, window=part) > 0


def _called_alpha(source: rasterio.DatasetReader) -> list[int]:
    return [index for index in source.indexes if source.colorinterp[index - 1] == ColorInterp.alpha]


def _is_mask(source: rasterio.DatasetReader, index: int) -> bool:
    """Return whether a band that is called alpha is one: near infrared in fourth place is called so too."""
    if source.driver == "PNG":
        return True
    file = Path(source.name)
    return _holds_mask(source.name, file.stat().st_mtime_ns if file.is_file() else 0, index)


@functools.lru_cache(maxsize=4096)
def _holds_mask(name: str, _changed: int, index: int) -> bool:
    """Look at a thinned-out band; cached, because every window of a large scene asks."""
    with open_raster(as_source(name)) as pages:
        source = pages[0]
        shape = (min(source.height, _THINNED), min(source.width, _THINNED))
        band = source.read(index, out_shape=shape)
    top = np.iinfo(band.dtype).max if band.dtype.kind in "iu" else 1
    return bool(np.isin(band, (0, top)).all())


def valid_pixels(
    source: rasterio.DatasetReader, part: RasterioWindow, indices: Sequence[int] | None = None
) -> np.ndarray:
    """Return (h, w), True where the file's own mask says that a pixel of the window `part` is valid.

    A no-data value makes a pixel invalid where all bands hold it, of these (one-based) `indices` if given.
    """
    shape = (int(part.height), int(part.width))
    if all(flags == [MaskFlags.all_valid] for flags in source.mask_flag_enums):
        return np.ones(shape, dtype=bool)
    if any(index in colour_bands(source) for index in _called_alpha(source)):
        # The file's mask would be that band.
        return np.ones(shape, dtype=bool) if source.nodata is None else _differs(source, part, indices)
    if indices is None or any(flags != [MaskFlags.nodata] for flags in source.mask_flag_enums):
        return source.dataset_mask(window=part) > 0
    return (source.read_masks(list(indices), window=part) > 0).any(axis=0)


def _differs(
    source: rasterio.DatasetReader, part: RasterioWindow, indices: Sequence[int] | None
) -> np.ndarray:
    """Return where any band differs from the no-data value, as GDAL's own mask does."""
    image, nodata = source.read(None if indices is None else list(indices), window=part), source.nodata
    return (~np.isnan(image) if np.isnan(nodata) else image != nodata).any(axis=0)
