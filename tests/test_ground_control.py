"""Images with ground control points and no transform: their maps carry the same points."""

import json

import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

import predict_small
from tests.scene_helpers import WINDOWS, Bands, blobs, large, use, write_scene
from utils.data.raster import raster_info
from utils.program import run_program

# Row, column, longitude, latitude, metres.
POINTS = [(0, 0, 10.0, 50.0, 0.0), (0, 90, 11.0, 50.1, 5.0)]
POINTS += [(70, 0, 10.0, 49.0, 0.0), (70, 90, 11.0, 49.2, 1.5)]


@pytest.fixture
def scene(tmp_path):
    """A scene with points in longitude and latitude."""
    points = [GroundControlPoint(*point) for point in POINTS]
    place = {"gcps": points, "crs": "EPSG:4326", "transform": None}
    return write_scene(tmp_path / "in" / "a.tif", blobs(70, 90), **place)


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "in").mkdir()


def found(path) -> tuple[list[tuple], CRS]:
    with rasterio.open(path) as source:
        assert source.crs is None and source.transform.is_identity
        points, crs = source.gcps
        return [(point.row, point.col, point.x, point.y, point.z) for point in points], crs


def test_header(scene, tmp_path):
    ground = raster_info(scene).ground
    assert list(ground.points) == POINTS and CRS.from_wkt(ground.crs) == CRS.from_epsg(4326)
    assert raster_info(write_scene(tmp_path / "grid.tif", blobs(8, 8))).ground is None


@pytest.mark.parametrize("kind", ["tif", "cog", "png"])
def test_maps_of_predict_large(scene, tmp_path, monkeypatch, capsys, kind):
    use(monkeypatch, Bands())
    words = [*WINDOWS, "--FORMAT", kind, "--SCORES", "confidence", "--VECTOR", "geojson"]
    assert large(scene, tmp_path / "out", *words) == 0
    for name in ("a.tif", "a_confidence.tif"):
        assert found(tmp_path / "out" / name) == (POINTS, CRS.from_epsg(4326))
    assert "ground control points and no transform; the maps carry the same points" in capsys.readouterr().out
    outlines = json.loads((tmp_path / "out" / "a.geojson").read_text(encoding="utf-8"))["features"]
    corners = [point for each in outlines for ring in each["geometry"]["coordinates"] for point in ring]
    assert max(x for x, _ in corners) == 90 and max(y for _, y in corners) == 70


def test_maps_of_predict_small(scene, tmp_path, monkeypatch):
    use(monkeypatch, Bands())
    words = ["--WEIGHTS", "x.pth", "--INPUT", str(scene), "--OUTPUT", str(tmp_path / "out"), "--USE_CPU"]
    assert run_program(predict_small.main, words) == 0
    assert found(tmp_path / "out" / "a.tif") == (POINTS, CRS.from_epsg(4326))
