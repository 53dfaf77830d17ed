"""Images whose bands are selected, or stacked from several files: the one place that all programs read by.

A selected image is what a file with just these bands would be: the others are not read, and a pixel is
without data where the selected bands say so.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nets.errors import UserError
from utils.data.findings import FileError
from utils.data.grids import check_same_grid
from utils.data.pieces import Source, join, selected, stacked
from utils.data.raster import RasterInfo, Window, raster_info, read_image


def source_info(path: Path | str, extra: Sequence[Path] = ()) -> RasterInfo:
    """Read the header of an image with the bands of further rasters behind its own.

    Args:
        path: The image; size, coordinates and no-data value are its own.
        extra: Rasters of the same pixels.

    Raises:
        UserError: A file cannot be read, or one of `extra` does not cover the same pixels.
    """
    image = raster_info(path)
    if not extra:
        return image
    infos = [image, *map(raster_info, extra)]
    for other in infos[1:]:
        if (other.height, other.width) != (image.height, image.width):
            raise FileError(
                f"{other.path} (--EXTRA_IMAGES) has {other.height} x {other.width} pixels (rows x columns), "
                f"its image {image.path} has {image.height} x {image.width}; resample it to the image's grid",
                "extra image",
                other.path,
                f"{other.height} x {other.width}, its image {image.height} x {image.width}",
            )
        check_same_grid(image, other, "the extra image", "extra image")
    return replace(
        image,
        bands=sum(info.bands for info in infos),
        dtype=np.result_type(*(info.dtype for info in infos)).name,
        band_names=tuple(name for info in infos for name in info.band_names),
        pieces=stacked([(info.path, info.bands) for info in infos]),
    )


def source_of(info: RasterInfo) -> Source:
    """Return what an image is read from."""
    return info.pieces or stacked([(info.path, info.bands)])


def select_bands(info: RasterInfo, order: Sequence[int] | None) -> RasterInfo:
    """Return the header of an image of which only these bands (from 0 on) are read; None leaves it as it is.

    Raises:
        UserError: No band of an extra image is selected.
    """
    if order is None or tuple(order) == tuple(range(info.bands)):
        return info
    pieces, files = selected(source_of(info), order), source_of(info)
    unread = [str(piece.path) for piece in files[1:] if piece.path not in {kept.path for kept in pieces}]
    if unread:
        raise UserError(
            f"none of the bands of {unread[0]} (--EXTRA_IMAGES) is used; leave it out, or select some of its "
            f"bands, which are counted behind the image's {len(files[0].places)}"
        )
    names = tuple(info.band_names[band] for band in order)
    return replace(info, bands=len(order), band_names=names, pieces=pieces)


def read_source(source: Source, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (C, h, w), or a window of it, and `valid` (h, w); see `read_image`."""
    return join(source, [read_image(piece.path, window, piece.bands) for piece in source])
