"""Whether two rasters lie on the same grid of the map."""

import numpy as np
from rasterio.crs import CRS

from utils.data.findings import FileError
from utils.data.raster import RasterInfo

# Two rasters are taken for shifted where a corner is further off than this, pixels.
_MOST_SHIFT = 0.5


def check_same_grid(image: RasterInfo, other: RasterInfo, role: str, kind: str) -> None:
    """Raise a FileError where both files say where they lie on the map and contradict each other.

    Args:
        image: The image.
        other: A raster of the same size in pixels.
        role: What it is, with article.
        kind: Of the mistake.
    """
    if image.crs and other.crs and CRS.from_wkt(image.crs) != CRS.from_wkt(other.crs):
        one, two = (crs_name(info.crs) for info in (other, image))
        text = f"{other.path} is in {one}, its image {image.path} in {two}; warp {role} to that"
        raise FileError(text, kind, other.path, f"in {one}, its image in {two}")
    if image.transform is None or other.transform is None:
        return
    to_map, from_map = (np.reshape(info.transform, (3, 3)) for info in (other, image))
    corners = np.array([(x, y, 1) for x in (0, other.width) for y in (0, other.height)]).T
    shift = float(np.abs(np.linalg.solve(from_map, to_map @ corners) - corners).max())
    if shift > _MOST_SHIFT:
        raise FileError(
            f"{other.path} lies up to {shift:.4g} pixels beside its image {image.path} on the map "
            "(other origin or pixel size); cut both to one grid",
            kind,
            other.path,
            f"up to {shift:.4g} pixels beside",
        )


def crs_name(wkt: str) -> str:
    """Return the number or the name of a coordinate reference system."""
    crs = CRS.from_wkt(wkt)
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else wkt.split('"')[1]
