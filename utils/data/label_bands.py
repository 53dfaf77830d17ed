"""Which bands of a raster are its label."""

from pathlib import Path

import rasterio

from utils.data.findings import FileError
from utils.data.labels import pack_color
from utils.data.raster_masks import colour_bands


def label_bands(pages: list[rasterio.DatasetReader]) -> list[int]:
    """Return the bands of a label: one of numbers or three of colours, without alpha."""
    return list(range(len(pages))) if len(pages) > 1 else colour_bands(pages[0])


def label_nodata(pages: list[rasterio.DatasetReader]) -> float | None:
    """Return the value of a label, or the packed colour, that stands for "no data", or None."""
    nodata = pages[0].nodata
    colors = nodata is not None and len(label_bands(pages)) == 3 and float(nodata).is_integer()
    return pack_color((nodata,) * 3) if colors else nodata


def require_label(path: Path, count: int, dtype: str = "") -> None:
    """Refuse a file that has other bands than a label; no `dtype` is one that is not known."""
    if count != 1 and (count, dtype) != (3, "uint8"):
        has = f"{count} bands{f' of {dtype}' if dtype else ''}"
        raise FileError(
            f"{path} has {has}; a label is one band of class ids, or red, green and blue of 8 bits; "
            "where each band is a class, give --TASK multilabel",
            "label bands",
            path,
            has,
        )
