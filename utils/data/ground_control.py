"""Ground control points: how an image lies on the ground that no grid describes yet, as Sentinel-1 GRD."""

from typing import NamedTuple

import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS


class GroundControl(NamedTuple):
    """Points of an image whose place is known.

    Attributes:
        points: (row, column, x, y, z) of each; z is None where it is not known.
        crs: Coordinate reference system of x and y as WKT, or None.
    """

    points: tuple[tuple[float, float, float, float, float | None], ...]
    crs: str | None

    def profile(self) -> dict:
        """Return what rasterio needs to write them into a new file."""
        points = [GroundControlPoint(*point) for point in self.points]
        return {"gcps": points, "crs": CRS.from_wkt(self.crs) if self.crs else None}


def ground_control(source: rasterio.DatasetReader) -> GroundControl | None:
    """Return the points of a raster without a transform, None where there are none."""
    points, crs = source.gcps
    if not points or not source.transform.is_identity:
        return None
    places = tuple((point.row, point.col, point.x, point.y, point.z) for point in points)
    return GroundControl(places, crs.to_wkt() if crs else None)
