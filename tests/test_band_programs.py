"""Selected and stacked bands from the command line: training, evaluation and both kinds of prediction."""

import sys

import numpy as np
import pytest

import evaluate
import predict_large
import predict_small
import train
from Structure import load_network
from tests.tiny_dataset import add_heights, write_dataset, write_raster
from utils.data.raster import read_image, read_label
from utils.program import run_program


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a program in an empty folder; return its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(program, *words):
        monkeypatch.setattr(sys, "argv", ["x", *words])
        code = run_program(program.main, list(words))
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


def test_all_programs_take_the_bands_of_the_checkpoint(tmp_path, run):
    root = add_heights(write_dataset(tmp_path / "data", bands=4, size=48, tiles=4))
    words = ["--DATASET_PATH", str(root), "--USE_CPU", "--NUM_WORKERS", "0"]
    words += ["--BATCH_SIZE", "2", "--RUN_NAME", "r", "--BACKBONE_TYPE", "test_resnet"]
    words += ["--MODEL_OPTIONS", "decoder_channels=8"]
    code, text = run(train, *words, "--BAND_INDEX", "3,1,5", "--EXTRA_IMAGES", "dem")
    assert code in (None, 0), text
    best = tmp_path / "pth_files" / "r" / "best.pth"
    network = load_network(best)
    assert network.bands == 3
    said = network.about["bands"]
    assert (said["index"], said["files"]) == ([3, 1, 5], [4, 1])
    assert said["names"] == ["band_3", "band_1", "dem"] and said["available"][3:] == ["band_4", "dem"]

    base = ["--WEIGHTS", str(best), "--USE_CPU", "--NUM_WORKERS", "0"]
    code, text = run(evaluate, *base, "--DATASET_PATH", str(root), "--WORST", "0")
    assert code == 0 and "bands:   3 (band_3, band_1, dem)" in text
    one = root / "images" / "v0.tif"
    maps = {}
    for program in (predict_small, predict_large):
        out = str(tmp_path / program.__name__)
        code, text = run(program, *base, "--INPUT", str(one), "--OUTPUT", out)
        assert code == 2 and "give --EXTRA_IMAGES" in text and not (tmp_path / program.__name__).exists()
        for extra in (root / "dem", root / "dem" / "v0.tif"):
            given = ["--INPUT", str(one), "--OUTPUT", out, "--EXTRA_IMAGES", str(extra)]
            assert run(program, *base, *given)[0] in (None, 0)
        maps[program] = read_image(next((tmp_path / program.__name__).glob("v0.*")))[0]
    np.testing.assert_array_equal(*maps.values())
    # The stack in one file, and the chosen bands alone with their names, are read as well.
    image, _ = read_image(one)
    write_raster(tmp_path / "in" / "v0.tif", np.concatenate([image.astype(np.float32), image[:1]]))
    assert run(predict_small, *base, "--INPUT", "in/v0.tif", "--OUTPUT", "stacked")[0] in (None, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "stacked" / "v0.png")[0], maps[predict_small])

    code, text = run(
        train, "--RESUME", "r", "--EPOCHS", "2", "--NUM_WORKERS", "0", "--EXTRA_IMAGES", "data/dem"
    )
    assert code in (None, 0), text


def test_a_scene_with_an_extra_raster_is_trained_on_and_predicted_by_windows(tmp_path, run):
    """What is read of both files is the same part: the extra band repeats a band, which the label follows."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 2, (10, 12)), np.ones((16, 16), int)).astype(np.uint8)
    image = rng.integers(0, 50, (2, *label.shape)).astype(np.uint8)
    write_raster(tmp_path / "scene.tif", image)
    write_raster(tmp_path / "label.tif", label)
    write_raster(tmp_path / "dem.tif", label.astype(np.float32) * 100)
    words = [
        "--DATASET_PATH",
        "scene.tif,label.tif",
        "--EXTRA_IMAGES",
        "dem.tif",
        "--USE_CPU",
        "--RUN_NAME",
        "s",
    ]
    words += ["--NUM_WORKERS", "0", "--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8"]
    words += ["--CROP_SIZE", "64", "--MAX_ITERS", "30", "--AUGMENT", "none", "--VAL_FRACTION", "0.2"]
    words += ["--INIT_LR", "1e-3"]
    code, text = run(train, *words)
    assert code in (None, 0), text
    best = "pth_files/s/best.pth"
    assert load_network(best).about["bands"]["files"] == [2, 1]
    base = ["--WEIGHTS", best, "--USE_CPU", "--NUM_WORKERS", "2", "--INPUT", "scene.tif"]
    code, text = run(predict_large, *base, "--EXTRA_IMAGES", "dem.tif", "--WINDOW", "64", "--OUTPUT", "out")
    assert code in (None, 0), text
    agreement = np.mean(read_label(tmp_path / "out" / "scene.tif")[0] == label)
    assert agreement > 0.9, agreement
