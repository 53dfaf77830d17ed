"""Cloud-optimised GeoTIFFs: a finished file, laid out anew with overviews."""

import math
import warnings
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from utils.inference.tiles import require_tiles

_TILE = 512  # the usual one: a viewer fetches tile by tile


def write_cog(source: Path, target: Path, resampling: str, *, predictor: bool = False) -> None:
    """Write a closed GeoTIFF as a cloud-optimised one.

    Args:
        source: the file; it stays as it is.
        target: the file to write; nothing of it is left on an error.
        resampling: how the overviews are made, a name of `rasterio.enums.Resampling`.
        predictor: whether differences of neighbours are compressed.

    Raises:
        OSError: the disk is full.
    """
    overviews = overviews_of(source)
    options = {"compress": "deflate", "blocksize": _TILE, "bigtiff": "IF_SAFER"}
    options |= {"predictor": "YES"} if predictor else {}
    try:
        height = _make_overviews(source, overviews, resampling)
        rasterio.shutil.copy(source, target, driver="COG", overviews="FORCE_USE_EXISTING", **options)
        require_tiles(target, 0, height)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        overviews.unlink(missing_ok=True)


def overviews_of(source: Path) -> Path:
    """Return the file that holds the overviews of a GeoTIFF while it is laid out."""
    return source.with_name(f"{source.name}.ovr")


def _make_overviews(source: Path, overviews: Path, resampling: str) -> int:
    """Write the overviews beside the source, until one fits into a tile; return the rows of the source.

    Band by band: GDAL's COG driver would join all bands in each tile and compress the tile anew for every
    band, which takes 3 times as long for 11 bands of 3,000 x 3,000 pixels and 14 times for 6,000 x 6,000.
    """
    overviews.unlink(missing_ok=True)  # of an interrupted run
    layout = {"INTERLEAVE_OVERVIEW": "BAND", "COMPRESS_OVERVIEW": "DEFLATE", "BIGTIFF_OVERVIEW": "IF_SAFER"}
    with warnings.catch_warnings(), rasterio.Env(TIFF_USE_OVR=True, **layout):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain image has no coordinates
        with rasterio.open(source, "r+", driver="GTiff") as file:
            height, side = file.height, max(file.shape)
            factors = [2**power for power in range(1, math.ceil(math.log2(side / _TILE)) + 1)]
            if factors:
                file.build_overviews(factors, Resampling[resampling])
    for level, factor in enumerate(factors):
        require_tiles(overviews, 0, math.ceil(height / factor), level)
    return height
