"""Blended windows show no seams; without blending they do, and the measure sees it."""

import numpy as np
import pytest
import rasterio
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.seams import blended, borders, changes
from tests.helpers import shared_data
from tests.scene_helpers import Bands, large, read, use, write_scene
from utils.inference.blending import axis_weights
from utils.inference.windows import WindowGrid

SIZE = (200, 260)


def test_borders_by_hand():
    starts = (0, 6, 10)
    assert borders(starts, 8, 18, "flat").tolist() == [5, 7, 9, 13]
    assert borders(starts, 8, 18, "none").tolist() == [6, 11]
    assert borders((0,), 8, 8, "gaussian").tolist() == []


def test_changes_by_hand():
    grid = WindowGrid(3, 2, (0,), (0, 2))
    plane = np.array([[0.0, 0.0, 1.0, 1.0]] * 3)
    plane[2] += 0.5  # 4 of the 17 changes
    across, elsewhere = changes(np.stack([plane, 1 - plane]).astype(np.float32), grid, "none")
    assert across == pytest.approx(2.0) and elsewhere == pytest.approx(2 * 0.5 * 4 / 14)


@pytest.fixture(scope="module")
def windows():
    """Predictions that depend on the mean of the window, as do those of networks with pooled context."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(1, *SIZE)), (0, 4, 4))
    image = (noise / noise.std()).astype(np.float32)
    grid = WindowGrid.cover(*SIZE, 64, 0.25)
    predictions = []
    for top in grid.tops:
        for left in grid.lefts:
            window = torch.from_numpy(image[:, top : top + 64, left : left + 64])
            score = window - 2 * window.mean()
            predictions.append(torch.stack([score, -score], dim=1).softmax(1))
    return predictions, image, grid


@pytest.mark.parametrize("blend", ["gaussian", "cosine"])
def test_a_window_begins_and_ends_at_nothing(blend):
    # There its network is at its worst, and the other window weighs little too.
    first, second = axis_weights((0, 384), 512, 896, blend)
    assert 0 < second[0] < 1e-4 and 0 < first[-1] < 1e-4


@pytest.mark.parametrize("blend", ["gaussian", "cosine"])
def test_blending_leaves_no_seams(windows, blend):
    predictions, image, grid = windows
    scene = predictions, image, np.ones(SIZE, bool), grid
    across, elsewhere = changes(blended(*scene, blend), grid, blend)
    assert across <= 1.05 * elsewhere
    in_the_middle, _ = changes(blended(*scene, blend), grid, "none")
    seam, beside = changes(blended(*scene, "none"), grid, "none")
    assert seam > 2 * beside and in_the_middle < 0.7 * seam


def test_no_seams_on_a_real_scene(tmp_path, monkeypatch):
    """The change across window borders is that between other neighbours; side by side it is larger."""
    scene = shared_data("scene-bluemarble") / "images" / "world.tif"
    with rasterio.open(scene) as source:
        image = source.read(window=((700, 1000), (2600, 3100)))
    write_scene(tmp_path / "a.tif", image)
    use(monkeypatch, Bands(15))  # the border is felt seven pixels inside

    def mean_changes(*words) -> np.ndarray:
        assert large(tmp_path / "a.tif", tmp_path / "out", *words, "--SCORES", "--NUM_WORKERS", "1") == 0
        return np.abs(np.diff(read(tmp_path / "out/a_scores.tif"), axis=2)).mean((0, 1))

    whole = mean_changes("--WINDOW", "500")  # how much of the change lies in the picture
    ratios = {}
    for blend, overlap in (("gaussian", 32), ("none", 0)):
        words = ("--WINDOW", "128", "--OVERLAP", str(overlap / 128), "--BLEND", blend)
        change = mean_changes(*words) / whole
        edges = np.zeros(len(whole), bool)
        for left in range(128 - overlap, 500 - 128, 128 - overlap):
            edges[[left - 1, left + overlap // 2 - 1, left + overlap - 1]] = True
        ratios[blend] = change[edges].mean() / change[~edges].mean()
    assert ratios["gaussian"] < 1.05 < ratios["none"], ratios
