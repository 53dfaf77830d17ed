"""Several labels from end to end: a run, its files, evaluation, maps, export, resume, checks and pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import evaluate
import export
import predict_large
import predict_small
import Structure
import train
from tests.tiny_dataset import write_dataset, write_raster
from tests.training_helpers import NETWORK, same
from tools import check_dataset, show_batch
from utils.checkpoint import read_checkpoint
from utils.data.labels import IGNORE, Classes
from utils.deployment.onnx_network import load_onnx
from utils.evaluation.boundary import BoundaryIoU
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.overlays import IGNORED, NOTHING, colorize, mark_errors, overlay
from utils.inference.class_map import ClassTotals, to_class_map
from utils.inference.scores import Scores
from utils.program import run_program
from utils.training.session import Session

NAMES = ("low", "high", "stripe")
COMMON = [*NETWORK, "--TASK", "multilabel", "--BATCH_SIZE", "2", "--NUM_WORKERS", "0", "--USE_CPU"]
FLAGS = ["--INIT_LR", "0.02", "--LOSS_TYPE", "ce+dice:0.5", "--CLASS_WEIGHTS", "auto", "--VAL_INTERVAL", "4"]
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}


def truth_of(image: np.ndarray) -> np.ndarray:
    """Return three classes that overlap, two of which the bands (2, H, W) show."""
    stripe = np.zeros(image.shape[1:], bool)
    stripe[8:20] = True
    return np.stack([image[0] < 2500, image[1] > 1500, stripe & (image[0] < 2500)]).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set and a finished run."""
    folder = tmp_path_factory.mktemp("several")
    root = write_dataset(folder / "data", bands=2, size=48, tiles=5)
    rng = np.random.default_rng(0)
    for path in (root / "images").iterdir():
        image = rng.integers(0, 4000, (2, 4, 4)).repeat(12, 1).repeat(12, 2).astype(np.uint16)
        label = truth_of(image)
        label[:, :, 40:] = 255
        write_raster(path, image, **PLACE)
        (root / "labels" / f"{path.stem}.png").unlink()
        write_raster(root / "labels" / path.name, label, descriptions=NAMES, **PLACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("whole", "--MAX_ITERS", "8", "--SAVE_ITERS", "3") == 0
        yield folder


def run(name: str, *words: str) -> int:
    return run_program(train.main, ["--DATASET_PATH", "data", *COMMON, *FLAGS, "--RUN_NAME", name, *words])


def weights(folder: Path) -> str:
    return str(folder / "pth_files/whole/best.pth")


def test_what_a_run_leaves(place, capsys):
    run_folder = place / "pth_files/whole"
    checkpoint = read_checkpoint(run_folder / "best.pth")
    assert checkpoint["task"] == checkpoint["blueprint"]["options"]["task"] == "multilabel"
    assert checkpoint["classes"]["names"] == list(NAMES)
    with (run_folder / "unet_training_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and float(rows[1]["IoU_low"]) > 0.5
    scores = [float(rows[1][f"IoU_{name}"]) for name in NAMES]
    assert float(rows[1]["mIoU"]) == pytest.approx(np.mean(scores))
    assert (run_folder / "report.html").is_file()
    assert len(list((run_folder / "samples").glob("*.png"))) == 2
    assert (run_folder / "confusion.png").is_file()
    Structure.main(["--WEIGHTS", weights(place)])
    out = capsys.readouterr().out
    assert "low, high, stripe (multilabel)" in out and "task = multilabel" in out


def test_a_run_that_breaks_off_and_goes_on_has_the_bits_of_a_whole_one(place, monkeypatch):
    monkeypatch.chdir(place)
    step_done = Session.step_done

    def breaking(session, losses):
        step_done(session, losses)
        if session.iteration == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "step_done", breaking)
        assert run("part", "--MAX_ITERS", "8", "--SAVE_ITERS", "3") == 130
    assert run("part", "--RESUME") == 0
    whole, part = (read_checkpoint(place / f"pth_files/{name}/last.pth") for name in ("whole", "part"))
    same(whole["state_dict"], part["state_dict"])
    same(whole["training"]["best_matrix"], part["training"]["best_matrix"])
    assert whole["training"]["best_matrix"].shape == (3, 2, 2)


def test_evaluation_of_weights_and_of_maps_agree(place, capsys):
    data = ["--DATASET_PATH", str(place / "data"), "--USE_CPU", "--NUM_WORKERS", "0"]
    assert evaluate.main(["--WEIGHTS", weights(place), *data, "--OUTPUT", str(place / "by_weights")]) == 0
    logged = read_checkpoint(weights(place))["metrics"]["mIoU"]
    assert f"mIoU {logged:.4f}" in capsys.readouterr().out
    common = ["--WEIGHTS", weights(place), "--USE_CPU", "--NUM_WORKERS", "0"]
    predict_small.main([*common, "--INPUT", str(place / "data/images"), "--OUTPUT", str(place / "maps")])
    words = ["--PREDICTIONS", str(place / "maps"), "--TASK", "multilabel", *data]
    assert evaluate.main([*words, "--OUTPUT", str(place / "by_maps")]) == 0
    for name in ("metrics.csv", "confusion.csv", "per_image.csv"):
        assert (place / "by_weights" / name).read_text() == (place / "by_maps" / name).read_text()
    head = (place / "by_maps/confusion.csv").read_text().splitlines()[0]
    assert head == "class,found,missed,false alarm,rightly absent"
    assert list((place / "by_maps").glob("worst_*.png"))
    mistake = run_program(evaluate.main, ["--WEIGHTS", weights(place), *data, "--TASK", "multiclass"])
    assert mistake == 2 and "is for multilabel; leave --TASK out" in capsys.readouterr().err


def test_maps_of_a_scene(place, capsys):
    image = np.random.default_rng(3).integers(0, 4000, (2, 6, 9)).repeat(12, 1).repeat(12, 2)
    image[:, :30, :40] = 0
    write_raster(place / "scene.tif", image.astype(np.uint16), nodata=0, **PLACE)
    common = ["--WEIGHTS", weights(place), "--INPUT", str(place / "scene.tif"), "--USE_CPU"]
    more = ["--SCORES", "probabilities,entropy:uint8", "--NUM_WORKERS", "0"]
    predict_small.main([*common, *more, "--OUTPUT", str(place / "small")])
    large = ["--WINDOW", "128", "--VECTOR", "geojson", "--OUTPUT", str(place / "large")]
    predict_large.main([*common, *more, *large])
    assert "of which a pixel can have several" in capsys.readouterr().out
    maps = {}
    for name in ("small", "large"):
        with rasterio.open(place / name / "scene.tif") as file:
            maps[name] = file.read()
            assert file.descriptions == NAMES and file.nodata == 255 and file.crs == PLACE["crs"]
        with rasterio.open(place / name / "scene_scores.tif") as file:
            scores = file.read()
            assert file.descriptions == NAMES
        valid = ~np.isnan(scores[0])
        assert np.array_equal(maps[name], np.where(valid, scores >= 0.5, 255))
    assert np.array_equal(maps["small"], maps["large"])
    assert (maps["large"][:, :30, :40] == 255).all() and (maps["large"][:2].min(0) == 1).any(), "overlapping"
    found = json.loads((place / "large/scene.geojson").read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["class"] for feature in found} <= set(NAMES)
    area = sum(feature["properties"]["area_m2"] for feature in found)
    assert area == pytest.approx(100 * (maps["large"] == 1).sum())


def test_the_exported_file_gives_the_same(place):
    pytest.importorskip("onnxruntime")
    assert run_program(export.main, ["--WEIGHTS", weights(place), "--FORMAT", "onnx"]) == 0
    network = Structure.load_network(weights(place))
    onnx = load_onnx(place / "pth_files/whole/best.onnx")
    images = 4000 * torch.rand(1, 2, 48, 48)
    with torch.inference_mode():
        expected = network.probabilities(network(images))
        assert (onnx.probabilities(onnx(images)) - expected).abs().max() < 1e-4
    assert onnx.task == "multilabel"


def test_checks_and_pictures_of_batches(place, capsys):
    words = ["--DATASET_PATH", "data", *COMMON]
    assert check_dataset.main([*words, "--OUTPUT", "checked"]) == 0
    out = capsys.readouterr().out
    assert "absent" in out and "present" in out and "stripe" in out
    assert (place / "checked/contact_sheet.png").is_file()
    show_batch.main([*words, "--AUGMENT", "strong"])
    assert Image.open(place / "batch.png").size[0] > 100


def test_one_class_that_is_there_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", values=(0, 1), bands=2, size=48)
    words = ["--DATASET_PATH", "data", *COMMON, "--RUN_NAME", "one", "--NUM_CLASS", "1"]
    more = ["--VAL_WINDOW", "32", "--LOSS_TYPE", "focal+lovasz", "--ACCUMULATE", "2", "--EPOCHS", "1"]
    assert run_program(train.main, [*words, *more]) == 0
    checkpoint = read_checkpoint(tmp_path / "pth_files/one/last.pth")
    assert checkpoint["classes"]["names"] == ["class_0"] and len(checkpoint["metrics"]["pixels"]) == 1
    assert checkpoint["state_dict"]["classifier.weight"].shape[0] == 1


def test_a_network_of_masks_is_refused_before_the_data_are_read(capsys):
    words = ["--DATASET_PATH", "nowhere", "--MODEL_TYPE", "mask2former", "--TASK", "multilabel"]
    assert run_program(train.main, words) == 2
    assert "mask2former gives one class to each mask" in capsys.readouterr().err


def test_scores_by_hand():
    truth = torch.tensor([[[[1, 1, 0, -1]], [[0, 0, 0, 0]], [[1, -1, -1, 0]]]])
    found = torch.tensor([[[[1, 1, 1, 1]], [[0, 0, 0, 0]], [[1, 1, 1, 0]]]])
    confusion = ConfusionMatrix(3, "multilabel")
    counts = confusion.update(found, truth)
    assert counts.shape == (1, 3, 2, 2) and confusion.matrix[0].tolist() == [[0, 1], [0, 2]]
    scores = confusion.compute()
    assert scores.per_class["IoU"] == (2 / 3, None, 1.0) and scores.mIoU == pytest.approx(5 / 6)
    assert scores.per_class["Precision"][0] == 2 / 3 and scores.per_class["Recall"][0] == 1
    assert scores.Acc == 8 / 9 and scores.pixels == (2, 0, 1) and scores.absent == (1,)
    again = ConfusionMatrix.of(confusion.matrix).merge(confusion)
    assert torch.equal(again.matrix, 2 * confusion.matrix)
    boundary = BoundaryIoU(3)
    boundary.update(found, truth)
    assert boundary.compute()[1] == (2 / 3, None, 1.0), "one row is all outline"


def test_pictures_by_hand():
    shown = np.array([[[1, 1, 0, -1]], [[0, 1, 0, -1]]])
    colors = ((200, 0, 0), (0, 100, 50))
    expected = [[200, 0, 0], [100, 50, 25], [*NOTHING], [*IGNORED]]
    assert colorize(shown, colors)[0].tolist() == expected
    picture = np.full((1, 4, 3), 10, np.uint8)
    mixed = overlay(picture, shown, colors)[0]
    assert mixed[0].tolist() == [105, 5, 5] and (mixed[2:] == 10).all()
    marked = mark_errors(picture, shown, np.where(shown == IGNORE, 1, [[[1, 0, 0, 0]]]))
    assert [tuple(pixel) for pixel in marked[0]].count((214, 39, 40)) == 2


def test_decisions_by_hand():
    p = torch.tensor([[[0.5, 0.2, 0.9]], [[0.49, 0.6, 0.8]]])
    valid = np.array([[True, True, False]])
    found = to_class_map(p, valid, 2, "multilabel")
    assert found.tolist() == [[[1, 0, 255]], [[0, 1, 255]]] and found.dtype == np.uint8
    assert to_class_map(None, valid, 2, "multilabel").tolist() == [[[255] * 3]] * 2
    sure = Scores("confidence", task="multilabel").encode(p, valid)
    assert sure[0, 0, :2].tolist() == pytest.approx([0.5, 0.6])
    undecided = Scores("entropy", task="multilabel").encode(torch.full((2, 1, 3), 0.5), valid)
    assert undecided[0, 0, :2].tolist() == [1, 1]


def test_totals_of_classes_that_overlap():
    classes = Classes(("a", "long"), ((0, 0, 0), (1, 1, 1)), {0: 0, 1: 1}, (), "presence")
    totals = ClassTotals(classes)
    totals.add(np.array([[[1, 1, 0, 255]], [[1, 0, 0, 255]]], np.uint8), 1e6)
    totals.merge(totals)
    lines = totals.table().splitlines()
    assert lines[0].split() == ["a", "66.67", "%", "4.000", "km²"]
    assert lines[1].split()[:3] == ["long", "33.33", "%"] and "2 pixels, not counted" in lines[2]
