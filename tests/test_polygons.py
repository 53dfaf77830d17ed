"""Polygons of a class map: nothing is lost, nothing is cut, whatever the strips."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from tests.scene_helpers import CLASSES, GRID, Bands, blobs, large, use, write_scene
from utils.data.raster import raster_info
from utils.inference import polygons
from utils.inference.polygons import merged_polygons, write_polygons
from utils.inference.vector_files import Polygons


def write_map(path, ids: np.ndarray, **more):
    return write_scene(path, ids[None].astype(np.uint8), nodata=255, **more)


def maps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    snake = np.zeros((40, 30))
    snake[1::4, :-1] = snake[3::4, 1:] = 1
    snake[2::4, -1] = snake[2::4, 0] = 1
    rings = np.maximum(*np.abs(np.indices((41, 41)) - 20)) % 2
    holes = np.where(rng.random((37, 23)) < 0.1, 255, rng.integers(0, 2, (37, 23)))
    return {
        "noise": rng.integers(0, 3, (50, 31)),
        "snake": snake,
        "rings": rings,
        "holes": holes,
        "one": np.full((33, 9), 2),
        "nothing": np.full((33, 9), 255),
    }


@pytest.mark.parametrize("kind", sorted(maps()))
@pytest.mark.parametrize("tile", [1, 3, 16])
def test_strips_do_not_show(kind, tile, tmp_path, monkeypatch):
    ids = maps()[kind].astype(np.uint8)
    path = write_map(tmp_path / "a.tif", ids)

    def found() -> Polygons:
        everything = Polygons.none()
        for some in merged_polygons(path):
            everything = everything.plus(some)
        return everything

    whole = found()
    monkeypatch.setattr(polygons, "TILE", tile)
    monkeypatch.setattr(polygons, "STRIP_PIXELS", 1)
    joined = found()
    assert len(joined) == len(whole)
    assert shapely.is_valid(joined.shapes).all()
    assert shapely.get_num_coordinates(joined.shapes).sum() == shapely.get_num_coordinates(whole.shapes).sum()
    shapes = zip(joined.shapes, joined.values, strict=True)
    drawn = rasterize(shapes, ids.shape, fill=255, dtype="uint8") if len(joined) else np.full_like(ids, 255)
    assert np.array_equal(drawn, ids)
    monkeypatch.setattr(polygons, "WAITING_CORNERS", 8)
    cut = found()
    assert shapely.area(cut.shapes).sum() == shapely.area(whole.shapes).sum()


def test_files_have_names_sizes_and_coordinates(tmp_path):
    ids = np.array([[0, 0, 1], [255, 2, 1]], np.uint8)
    path = write_map(tmp_path / "a.tif", ids)
    write_polygons(path, tmp_path / "a.gpkg", CLASSES, raster_info(path))
    meta, _, geometry, fields = pyogrio.raw.read(tmp_path / "a.gpkg")
    table = dict(zip(meta["fields"], fields, strict=True))
    by_name = {name: index for index, name in enumerate(table["class"])}
    assert set(by_name) == set(CLASSES.names) and meta["crs"] == "EPSG:32633"
    assert table["pixels"][by_name["rock"]] == 2 and table["area_m2"][by_name["rock"]] == 200
    assert table["class_id"][by_name["lake"]] == 2
    assert shapely.from_wkb(geometry[by_name["rock"]]).bounds == (465200.0, 5080230.0, 465210.0, 5080250.0)
    write_polygons(path, tmp_path / "a.geojson", CLASSES, raster_info(path))
    features = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"]
    rock = next(one for one in features if one["properties"]["class"] == "rock")
    assert rock["properties"] == {"class_id": 1, "class": "rock", "pixels": 2, "area_m2": 200.0}
    outline = shapely.geometry.shape(rock["geometry"])
    assert outline.exterior.is_ccw and 14 < outline.centroid.x < 15 and 45 < outline.centroid.y < 46


def test_scene_without_data_or_coordinates(tmp_path):
    path = write_map(tmp_path / "a.tif", np.full((5, 5), 255), crs=None, transform=Affine.identity())
    for ending in ("gpkg", "geojson"):
        write_polygons(path, tmp_path / f"a.{ending}", CLASSES, raster_info(path))
    assert len(pyogrio.raw.read(tmp_path / "a.gpkg")[2]) == 0
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert len(list(tmp_path.iterdir())) == 3


def test_program(tmp_path, monkeypatch):
    use(monkeypatch, Bands())
    image = blobs(100, 80)
    source = write_scene(tmp_path / "a.tif", image)
    for ending in ("gpkg", "geojson"):
        assert large(source, tmp_path / ending, "--VECTOR", ending, "--NUM_WORKERS", "0") == 0
        meta, _, geometry, fields = pyogrio.raw.read(tmp_path / ending / f"a.{ending}")
        values = fields[list(meta["fields"]).index("class_id")]
        if ending == "gpkg":
            shapes = zip(shapely.from_wkb(geometry), values, strict=True)
            drawn = rasterize(shapes, (100, 80), transform=GRID["transform"], fill=255, dtype="uint8")
            with rasterio.open(tmp_path / ending / "a.tif") as result:
                assert np.array_equal(drawn, result.read(1))
        assert np.array_equal(np.unique(values), [0, 1, 2])
