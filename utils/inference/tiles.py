"""Whether all that was written has reached the disk."""

import errno
import itertools
import math
import os
from pathlib import Path

from rasterio.errors import RasterioError

from utils.data.raster_files import open_quietly


def require_tiles(path: Path, top: int, bottom: int, image: int = 0) -> None:
    """Raise an OSError where a tile of the rows from `top` to above `bottom` is not in a closed GeoTIFF.

    GDAL writes the directory and the last 64 KiB when it closes a file, and says nothing where it cannot.

    Args:
        path: the file.
        top: first row.
        bottom: row below the last one.
        image: which one of the file, in its order.
    """
    try:
        size = path.stat().st_size
        with open_quietly(f"GTIFF_DIR:{image + 1}:{path}" if image else path) as file:
            height, width = file.block_shapes[0]
            rows, columns = range(top // height, math.ceil(bottom / height)), math.ceil(file.width / width)
            for row, column, band in itertools.product(rows, range(columns), file.indexes):
                start, length = (
                    file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band)
                    for what in ("OFFSET", "SIZE")
                )
                if start is None or int(start) + int(length) > size:
                    raise disk_is_full(path)
    except RasterioError as error:
        raise disk_is_full(path) from error


def disk_is_full(path: Path) -> OSError:
    """Return the error of a file that GDAL could not write to its end."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
