"""evaluate.py measures a scene in blocks: what it counts is what predict_large.py would have written."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import evaluate
from tests.scene_helpers import GRID, Bands, large, use
from tests.tiny_dataset import write_list, write_raster
from utils.data import samples as samples_module
from utils.data.samples import evaluation_samples
from utils.data.window import Window
from utils.inference.windows import WindowGrid
from utils.program import run_program

SIZE = (250, 330)
FLAGS = ["--OVERLAP", "0.25", "--BLEND", "gaussian"]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A scene of smooth noise that is cut into blocks of at most 100 pixels, with a corner without data."""
    monkeypatch.setattr(samples_module, "LARGE", 200 * 200)
    monkeypatch.setattr(samples_module, "BLOCK", 100)
    rng = np.random.default_rng(0)
    image = 128 + 400 * gaussian_filter(rng.normal(size=(3, *SIZE)), (0, 3, 3))
    image = image.clip(1, 255).astype(np.uint8)
    image[:, :40, :120] = 0
    root = tmp_path / "data"
    for folder in ("images", "labels", "annotations"):
        (root / folder).mkdir(parents=True)
    write_raster(root / "images" / "world.tif", image, nodata=0, **GRID)
    write_raster(root / "labels" / "world.tif", rng.integers(0, 3, SIZE).astype(np.uint8), **GRID)
    write_list(root, "test", ["world"])
    (root / "classes.json").write_text(json.dumps({"names": ["ice", "rock", "lake"]}), encoding="utf-8")
    return root


def judged(scene, output, *flags):
    words = ["--DATASET_PATH", str(scene), "--SPLIT", "test", "--OUTPUT", str(output), "--WORST", "1"]
    assert run_program(evaluate.main, [*words, "--NUM_WORKERS", "0", *flags]) == 0
    return [(output / name).read_text() for name in ("per_image.csv", "metrics.csv", "per_scene.csv")]


@pytest.mark.parametrize("window", [(), ("--WINDOW", "96")])
def test_blocks_of_a_scene_are_predicted_as_the_whole_scene(scene, tmp_path, monkeypatch, capsys, window):
    use(monkeypatch, Bands(kernel=31))  # the scene is all the same at a distance of 15 pixels and more
    assert large(scene / "images" / "world.tif", tmp_path / "maps", *FLAGS, *window) == 0
    maps = judged(scene, tmp_path / "of_maps", "--PREDICTIONS", str(tmp_path / "maps"))
    capsys.readouterr()
    network = judged(scene, tmp_path / "of_network", "--WEIGHTS", "x.pth", "--USE_CPU", *FLAGS, *window)
    assert network == maps
    assert len(maps[0].splitlines()) > 9
    side = window[1] if window else "64"
    assert (
        f"{side} x {side} pixels, overlap 0.25, blending gaussian: blocks of scenes"
        in capsys.readouterr().out
    )


def test_windows_around_a_part():
    scene = WindowGrid.cover(250, 330, 64, 0.25)
    grid, region = scene.around(Window(83, 110, 84, 110))
    tops, lefts = [top + region.top for top in grid.tops], [left + region.left for left in grid.lefts]
    assert tops == [48, 96, 144] and lefts == [48, 96, 144, 192] and grid.size == (64, 64)
    assert region == Window(48, 48, 160, 208)
    assert scene.around(Window(0, 0, 250, 330)) == (scene, Window(0, 0, 250, 330))


def test_the_scene_of_these_tests_is_cut(scene):
    from utils.data.layout import scan_dataset

    assert len(evaluation_samples(scan_dataset(scene, splits=("test",)).splits["test"])) == 12
