"""GeoPackage and GeoJSON, written feature by feature; an unfinished file never has its final name."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pyogrio
import shapely
from affine import Affine
from rasterio.warp import transform as transform_points

from utils.data.raster import RasterInfo

_DECIMALS = 7  # of a degree: about a centimetre, what RFC 7946 advises


@dataclass(frozen=True)
class Polygons:
    """Shapely polygons in pixels (column, row), and the class id of each."""

    shapes: np.ndarray
    values: np.ndarray

    @classmethod
    def none(cls) -> "Polygons":
        """Return no polygons."""
        return cls(np.zeros(0, object), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.values)

    def take(self, which: np.ndarray) -> "Polygons":
        """Return those that a mask or a list of numbers names."""
        return Polygons(self.shapes[which], self.values[which])

    def plus(self, other: "Polygons") -> "Polygons":
        """Return both, one after the other."""
        return Polygons(
            np.concatenate([self.shapes, other.shapes]), np.concatenate([self.values, other.values])
        )


@contextmanager
def open_vector_file(
    target: Path, info: RasterInfo, names: Sequence[str], area: float | None
) -> Iterator[Callable[[Polygons], None]]:
    """Give a function that adds polygons to a new file, which gets its name when the block ends well.

    Args:
        target: file to write, ending in .gpkg or .geojson.
        info: its coordinates are those of the polygons; without any they stay in pixels.
        names: of the classes.
        area: of a pixel in square metres, None where it is unknown.
    """
    part = target.with_name(f"{target.stem}.part{target.suffix}")  # GDAL wants the ending
    part.unlink(missing_ok=True)
    try:
        if target.suffix == ".gpkg":
            yield _geopackage(part, info, names, area)
        else:
            with part.open("w", encoding="utf-8") as file:
                yield _geojson(file, info, names, area)
                file.write("\n]}\n")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _geopackage(
    part: Path, info: RasterInfo, names: Sequence[str], area: float | None
) -> Callable[[Polygons], None]:
    def add(found: Polygons) -> None:
        fields = _attributes(found, names, area)
        outlines = shapely.transform(found.shapes, lambda points: _to_map(points, info.transform))
        with warnings.catch_warnings():
            # A plain image has no coordinate reference system, which pyogrio finds worth a warning.
            warnings.filterwarnings("ignore", message=".*crs.*")
            pyogrio.raw.write(
                part,
                geometry=shapely.to_wkb(outlines),
                field_data=list(fields.values()),
                fields=np.array(list(fields), object),
                geometry_type="Polygon",
                crs=info.crs,
                driver="GPKG",
                layer="classes",
                append=part.exists(),
            )

    add(Polygons.none())  # a scene without data has an empty layer
    return add


def _geojson(
    file: TextIO, info: RasterInfo, names: Sequence[str], area: float | None
) -> Callable[[Polygons], None]:
    """Write RFC 7946: longitude and latitude, outer rings counter-clockwise."""
    file.write('{"type": "FeatureCollection", "features": [')
    first = True

    def place(points: np.ndarray) -> np.ndarray:
        points = _to_map(points, info.transform)
        if info.crs is None or not len(points):
            return points
        degrees = transform_points(info.crs, "OGC:CRS84", points[:, 0], points[:, 1])
        return np.round(np.stack(degrees, axis=1), _DECIMALS)

    def add(found: Polygons) -> None:
        nonlocal first
        outlines = shapely.to_geojson(shapely.orient_polygons(shapely.transform(found.shapes, place)))
        fields = _attributes(found, names, area)
        for index, outline in enumerate(outlines):
            values = {name: _plain(column[index]) for name, column in fields.items()}
            text = json.dumps(values, ensure_ascii=False)
            file.write("\n" if first else ",\n")
            file.write(f'{{"type": "Feature", "properties": {text}, "geometry": {outline}}}')
            first = False

    return add


def _attributes(found: Polygons, names: Sequence[str], area: float | None) -> dict[str, np.ndarray]:
    pixels = np.rint(shapely.area(found.shapes)).astype(np.int64)
    fields = {
        "class_id": found.values.astype(np.int32),
        "class": np.array([names[value] for value in found.values], object),
        "pixels": pixels,
    }
    return fields if area is None else {**fields, "area_m2": pixels * area}


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _to_map(points: np.ndarray, transform: Affine | None) -> np.ndarray:
    if transform is None:
        return points
    a, b, c, d, e, f = transform[:6]
    columns, rows = points[:, 0], points[:, 1]
    return np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=1)
