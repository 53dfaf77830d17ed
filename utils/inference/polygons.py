"""From a class map on the disk to polygons, strip by strip, in memory that the scene's area does not change.

A polygon that reaches the lower end of a strip waits and is joined with what continues it, so that no strip
shows in the result. Polygons that wait are cut where they have more corners together than memory allows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.features import shapes
from rasterio.windows import Window as RasterioWindow

from utils.data.labels import Classes
from utils.data.raster import RasterInfo
from utils.data.raster_files import open_quietly
from utils.inference.class_map import pixel_area
from utils.inference.row_writer import TILE
from utils.inference.vector_files import Polygons, open_vector_file

STRIP_PIXELS = 4_000_000
WAITING_CORNERS = 4_000_000  # about 300 MB in GEOS


def write_polygons(raster: Path, target: Path, classes: Classes, info: RasterInfo) -> None:
    """Write the areas of equal class, joined over shared edges, with class number, name and size.

    Of several labels the areas of different classes may overlap.

    Args:
        raster: class map; its no-data is left out.
        target: file to write, ending in .gpkg or .geojson.
        classes: names.
        info: coordinates of the map; without any, the polygons are in pixels.
    """
    with open_vector_file(target, info, classes.names, pixel_area(info)) as add:
        if not classes.multilabel:
            for found in merged_polygons(raster):
                add(found)
            return
        for index in range(classes.num_classes):
            for found in merged_polygons(raster, index + 1, absent=0):
                add(Polygons(found.shapes, np.full(len(found), index)))


def merged_polygons(raster: Path, band: int = 1, absent: int | None = None) -> Iterator[Polygons]:
    """Yield the polygons of a band of a class map in pixels (column, row), but for the value `absent`."""
    waiting = Polygons.none()
    before: np.ndarray | None = None
    for top, ids, found in _strips(raster, band, absent):
        if before is not None:
            found = _join(waiting, found, before == ids[0], top)
        bottom = top + len(ids)
        last = shapely.bounds(found.shapes)[:, 3] >= bottom if len(found) else np.zeros(0, bool)
        waiting, before = found.take(last), ids[-1]
        yield found.take(~last)
        if shapely.get_num_coordinates(waiting.shapes).sum() > WAITING_CORNERS:
            yield waiting
            waiting = Polygons.none()
    yield waiting


def _strips(raster: Path, band: int, absent: int | None) -> Iterator[tuple[int, np.ndarray, Polygons]]:
    """Yield (first row, class ids (h, W), their polygons) from top to bottom."""
    with open_quietly(raster) as source:
        rows = max(1, STRIP_PIXELS // source.width // TILE) * TILE
        for top in range(0, source.height, rows):
            count = min(rows, source.height - top)
            ids = source.read(band, window=RasterioWindow(0, top, source.width, count))
            place = rasterio.Affine.translation(0, top)
            wanted = ids != source.nodata if absent is None else (ids != source.nodata) & (ids != absent)
            found = list(shapes(ids, mask=wanted, connectivity=4, transform=place))
            outlines = [shapely.Polygon(one["coordinates"][0], one["coordinates"][1:]) for one, _ in found]
            values = np.array([value for _, value in found], np.int64)
            yield top, ids, Polygons(np.array(outlines, object), values)


def _join(upper: Polygons, lower: Polygons, same: np.ndarray, row: int) -> Polygons:
    """Unite polygons of one class that share an edge on the line between two strips.

    Args:
        upper: polygons that end on the line.
        lower: all polygons below it.
        same: (W,) True where the pixels above and below the line have one class.
        row: the line.
    """
    count = len(upper)
    above, below = _owners(upper, row, len(same)), _owners(lower, row, len(same))
    touching = same & (above >= 0) & (below >= 0)
    pairs = np.unique(np.stack([above[touching], below[touching] + count]), axis=1).T
    groups = _connected(pairs.tolist())
    everything = upper.plus(lower)
    alone = np.ones(len(everything), bool)
    united = []
    for members in groups:
        alone[members] = False
        united.append(shapely.simplify(shapely.union_all(everything.shapes[members]), 0))
    joined = Polygons(
        np.array(united, object), np.array([everything.values[members[0]] for members in groups], np.int64)
    )
    return everything.take(alone).plus(joined)


def _owners(polygons: Polygons, row: int, width: int) -> np.ndarray:
    """Return (width,) the number of the polygon that has an edge on the line `row` there, -1 without."""
    owners = np.full(width, -1)
    if not len(polygons):
        return owners
    bounds = shapely.bounds(polygons.shapes)
    near = np.flatnonzero((bounds[:, 1] <= row) & (bounds[:, 3] >= row))
    rings, of_shape = shapely.get_rings(polygons.shapes[near], return_index=True)
    corners, of_ring = shapely.get_coordinates(rings, return_index=True)
    edges = (of_ring[1:] == of_ring[:-1]) & (corners[1:, 1] == row) & (corners[:-1, 1] == row)
    for index in np.flatnonzero(edges):
        first, last = sorted((int(corners[index, 0]), int(corners[index + 1, 0])))
        owners[first:last] = near[of_shape[of_ring[index]]]
    return owners


def _connected(pairs: list[list[int]]) -> list[list[int]]:
    """Return the groups of numbers that pairs connect."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        parent.setdefault(number, number)
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for one, other in pairs:
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = {}
    for number in parent:
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())
