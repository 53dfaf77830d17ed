"""The whole path as a stranger walks it: train, evaluate, predict, rebuild, on ten-band GeoTIFFs."""

import csv
import re

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

import evaluate
import predict_large
import predict_small
import Structure
import train
from tests.tiny_dataset import write_dataset, write_raster
from utils.program import run_program

PLACE = {"crs": "EPSG:32645", "transform": from_origin(500000, 3100000, 10, 10)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on tiles whose class shows in every band, so that a tiny network learns it."""
    root = tmp_path_factory.mktemp("path")
    data = write_dataset(root / "data", bands=10, size=64, tiles=6)
    rng = np.random.default_rng(0)
    rows, columns = np.indices((64, 64)) // 16
    label = ((rows + 2 * columns) % 3).astype(np.uint8)
    for image in (data / "images").iterdir():
        write_raster(data / "labels" / f"{image.stem}.png", label)
        bands = 1000 * label[None].astype(int) + rng.integers(0, 300, (10, 64, 64))
        write_raster(image, bands.astype(np.uint16), **PLACE)
    (data / "annotations" / "test.txt").write_text("v0\nv1\n")
    network = ["--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        words = ["--DATASET_PATH", "data", *network, "--USE_CPU", "--NUM_WORKERS", "0", "--EPOCHS", "25"]
        assert run_program(train.main, [*words, "--RUN_NAME", "tiny", "--INIT_LR", "0.01"]) == 0
    return root


@pytest.fixture(autouse=True)
def _there(trained, monkeypatch):
    monkeypatch.chdir(trained)


BEST = "pth_files/tiny/best.pth"


def test_it_learned_and_flips_follow_the_crs(trained, capsys):
    assert Structure.load_network(BEST).about["metrics"]["mIoU"] > 0.6
    text = (trained / "pth_files" / "tiny" / "options.json").read_text()
    assert '"d4"' in text and "images carry a CRS" in text


def test_evaluate(trained, capsys):
    words = ["--WEIGHTS", BEST, "--DATASET_PATH", "data", "--SPLIT", "test", "--NUM_WORKERS", "0"]
    assert run_program(evaluate.main, words) == 0
    printed = re.search(r"^\s*mIoU\s+(0\.\d{4})$", capsys.readouterr().out, re.MULTILINE)
    folder = trained / "pth_files" / "tiny" / "evaluation_test"
    assert {"metrics.csv", "confusion.csv", "confusion.png"} <= {path.name for path in folder.iterdir()}
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert any("mIoU" in row for row in table) and float(printed.group(1)) > 0.6


def test_small_and_large_agree_and_carry_the_georeference(trained):
    for program, output in ((predict_small, "small"), (predict_large, "large")):
        words = ["--WEIGHTS", BEST, "--INPUT", "data/images/v0.tif", "--OUTPUT", output, "--SCORES"]
        assert run_program(program.main, words) == 0
        with rasterio.open(trained / output / "v0.tif") as file:
            assert file.crs == rasterio.CRS.from_string(PLACE["crs"]) and file.transform == PLACE["transform"]
            assert file.shape == (64, 64) and file.colormap(1)[0][3] == 255
        with rasterio.open(trained / output / "v0_scores.tif") as file:
            np.testing.assert_allclose(file.read().sum(axis=0), 1, atol=1e-5)
        with Image.open(trained / output / "v0_overlay.png") as picture:
            assert picture.size == (64, 64)
    maps = [rasterio.open(trained / output / "v0.tif").read(1) for output in ("small", "large")]
    np.testing.assert_array_equal(*maps)  # the crop is the tile: one window, the same network


def test_structure(capsys):
    assert run_program(Structure.main, ["--WEIGHTS", BEST]) == 0
    text = capsys.readouterr().out
    for word in ("Total params", "FLOPs", "class_0, class_1, class_2", "test_resnet", "--EPOCHS 25"):
        assert word in text
    assert run_program(Structure.main, ["--LIST"]) == 0
    text = capsys.readouterr().out
    assert "segformer" in text and "--MODEL_OPTIONS version=" in text


def test_wrong_band_count_is_one_line(trained, capsys):
    write_raster(trained / "rgb.tif", np.zeros((3, 40, 40), dtype=np.uint8))
    assert run_program(predict_small.main, ["--WEIGHTS", BEST, "--INPUT", "rgb.tif"]) == 2
    error = capsys.readouterr().err.strip()
    assert "rgb.tif" in error and "3" in error and "10" in error and "\n" not in error
    assert not (trained / "output").exists()
