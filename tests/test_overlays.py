"""Previews, colours and side-by-side pictures."""

import warnings

import numpy as np
import pytest
from PIL import Image

from utils.data.bands import rgb_bands
from utils.data.labels import Classes
from utils.evaluation import overlays
from utils.evaluation.overlays import colorize, mark_errors, overlay, preview, side_by_side

COLORS = ((255, 0, 0), (0, 0, 255))
CLASSES = Classes(("ice", "水体"), COLORS, {0: 0, 1: 1}, (255,))


def everywhere(height: int, width: int) -> np.ndarray:
    return np.ones((height, width), dtype=bool)


@pytest.mark.parametrize(
    ("bands", "names", "expected"),
    [
        (1, (), (0,)),
        (2, ("VV", "VH"), (0,)),
        (3, ("blue", "green", "red"), (0, 1, 2)),
        (4, (), (0, 1, 2)),
        (4, ("Blue", "Green", "Red", "NIR"), (2, 1, 0)),
        (5, ("B02", "B03", "B04", "B08", "B11"), (2, 1, 0)),
        (5, ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6"), (2, 1, 0)),
        (5, ("red edge", "B04 - red", "infra red", "green", "blue"), (1, 3, 4)),
        (4, ("red", None, "green", "nir"), (0, 1, 2)),
    ],
)
def test_which_bands_are_shown(bands, names, expected):
    assert rgb_bands(bands, names) == expected


def test_eight_bit_rgb_is_shown_as_it_is():
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    valid = everywhere(4, 5)
    valid[0, 0] = False
    picture = preview(image, valid)
    assert picture.dtype == np.uint8 and picture.shape == (4, 5, 3)
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert np.array_equal(picture[1:], image.transpose(1, 2, 0)[1:])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", "uint8"])
@pytest.mark.parametrize("bands", [1, 2, 4, 10])
def test_stretch_for_any_dtype_and_band_count(dtype, bands):
    ramp = np.linspace(0, 200, 101).astype(dtype)
    image = np.broadcast_to(ramp, (bands, 3, 101)).copy()
    valid = everywhere(3, 101)
    if dtype == "float32":
        image[:, 0, :] = np.nan
        valid[0] = False
    image[:, 2, :] = 250  # garbage where there is no data must not move the stretch
    valid[2] = False
    picture = preview(image, valid)
    assert picture.shape == (3, 101, 3)
    assert picture[1, :3].max() == 0 and picture[1, -2:].min() == 255
    assert 125 <= picture[1, 50, 0] <= 130
    assert (picture[2] == 128).all()


def test_stretch_uses_percentiles_not_the_extremes():
    image = np.zeros((1, 1, 1000), dtype=np.float32)
    image[0, 0] = np.linspace(0, 1, 1000)
    image[0, 0, -1] = 1e6
    assert preview(image, everywhere(1, 1000))[0, 500, 0] == pytest.approx(128, abs=4)


def test_constant_and_empty_images():
    constant = np.full((4, 2, 2), 7, dtype=np.int16)
    assert (preview(constant, everywhere(2, 2)) == 128).all()
    empty = np.full((1, 2, 2), np.nan, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (preview(empty, ~everywhere(2, 2)) == 128).all()


def test_rare_values_in_a_flat_band_are_seen():
    image = np.zeros((1, 20, 20), dtype=np.uint16)
    image[0, 3, 3] = 500
    picture = preview(image, everywhere(20, 20))
    assert picture[3, 3, 0] == 255 and picture[0, 0, 0] == 0


def test_chosen_bands():
    image = np.stack([np.full((2, 2), value, np.uint8) for value in (10, 20, 30)])
    assert preview(image, everywhere(2, 2), (2, 1, 0))[0, 0].tolist() == [30, 20, 10]


def test_colorize_and_overlay():
    ids = np.array([[0, 1, -1]], dtype=np.int16)
    assert colorize(ids, COLORS)[0].tolist() == [[255, 0, 0], [0, 0, 255], [225, 225, 225]]
    picture = np.full((1, 3, 3), 100, dtype=np.uint8)
    mixed = overlay(picture, ids, COLORS, alpha=0.25)
    assert mixed.dtype == np.uint8
    assert mixed[0].tolist() == [[139, 75, 75], [75, 75, 139], [100, 100, 100]]
    assert colorize(np.array([[255]], np.uint8), COLORS, ignored=255)[0, 0].tolist() == [225, 225, 225]


def test_mark_errors():
    truth, prediction = np.array([[0, 1, -1]]), np.array([[0, 0, 1]])
    picture = mark_errors(np.zeros((1, 3, 3), np.uint8), truth, prediction)
    assert picture[0].tolist() == [[110, 110, 110], [214, 39, 40], [225, 225, 225]]


@pytest.mark.parametrize("shape", [(64, 64), (40, 200), (300, 40), (90, 2500)])
def test_side_by_side(shape, tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, shape).astype(np.int16)
    prediction = np.maximum(truth, 0)
    picture = rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        side_by_side(picture, truth, prediction, CLASSES, tmp_path / "a.png", title="图 a   mIoU 0.5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 300 and image.height > 100


def test_panels_and_legend_name_what_occurs(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        overlays,
        "_draw_panels",
        lambda panels, legend, path, title: drawn.update(panels=panels, legend=legend),
    )
    truth = np.array([[0, 0, 0, -1]] * 2, dtype=np.int16)
    prediction = np.array([[0, 1, 0, 1]] * 2)
    classes = Classes(("ice", "rock", "sea"), (*COLORS, (0, 255, 0)), {0: 0, 1: 1, 2: 2}, ())
    side_by_side(np.zeros((2, 4, 3), np.uint8), truth, prediction, classes, tmp_path / "a.png")
    assert list(drawn["panels"]) == ["input", "truth", "prediction", "errors in red (33.3 %)"]
    assert [name for name, _ in drawn["legend"]] == ["ice", "rock", "ignored"]


def test_a_large_scene_is_shrunk_alike_in_all_panels(tmp_path, monkeypatch):
    shapes = []
    monkeypatch.setattr(
        overlays,
        "_draw_panels",
        lambda panels, legend, path, title: shapes.extend(panel.shape for panel in panels.values()),
    )
    for height, width in ((301, 403), (299, 401), (5, 1000)):
        shapes.clear()
        ids = np.zeros((height, width), np.int16)
        picture = np.zeros((height, width, 3), np.uint8)
        side_by_side(picture, ids, ids, CLASSES, tmp_path / "a.png", largest=100)
        assert len(set(shapes)) == 1 and max(shapes[0]) <= 101 and min(shapes[0][:2]) >= 1
