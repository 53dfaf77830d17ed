"""evaluate.py from flags to tables, with a 1x1 network or with maps on the disk."""

import csv
import json
import sys

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import Structure
from evaluate import main
from nets.errors import UserError
from tests.evaluation_helpers import CLASSES, Brightest, read_csv
from tests.helpers import ROOT, UNWRITABLE, quick_answer
from utils.data.band_choice import TrainedBands
from utils.data.labels import Classes
from utils.data.layout import reading_of
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.split import compare_classes, open_split, reading_as_trained
from utils.options import evaluate_options


@pytest.fixture
def dataset(tmp_path):
    """Four-band tiles of three sizes with labels {0, 255} and 9 ignored; the last one is labelled wrongly."""
    root = tmp_path / "data"
    for folder in ("annotations", "images", "labels"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    shapes = {"a": (40, 40), "b": (40, 40), "sub/c": (64, 50), "d": (33, 70)}
    for name, (height, width) in shapes.items():
        image = rng.integers(0, 200, (4, height, width)).astype(np.uint16)
        label = np.where(image[0] > 100, 255, 0).astype(np.uint8)
        label[:2] = 9
        for folder in ("images", "labels"):
            (root / folder / name).parent.mkdir(exist_ok=True)
        options = {"driver": "GTiff", "count": 4, "height": height, "width": width, "dtype": "uint16"}
        options["transform"] = rasterio.transform.from_origin(0, 0, 10, 10)
        with rasterio.open(root / "images" / f"{name}.tif", "w", **options) as target:
            target.write(image)
        Image.fromarray(255 - label if name == "d" else label).save(root / "labels" / f"{name}.png")
    label = np.array(Image.open(root / "labels" / "d.png"))
    label[:2] = 9
    Image.fromarray(label).save(root / "labels" / "d.png")
    (root / "annotations" / "test.txt").write_text("\n".join(shapes), encoding="utf-8")
    (root / "classes.json").write_text(json.dumps({"names": ["rock", "ice"]}), encoding="utf-8")
    return root


def run(dataset, *flags: str) -> int:
    return main(
        ["--WEIGHTS", "x.pth", "--DATASET_PATH", str(dataset), "--SPLIT", "test", "--USE_CPU", *flags]
    )


def test_program(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    output = tmp_path / "out"
    output.mkdir()
    (output / "worst_07_old.png").write_bytes(b"")
    assert run(dataset, "--OUTPUT", str(output), "--WORST", "2", "--NUM_WORKERS", "0") == 0
    printed = capsys.readouterr().out
    pixels = {"a": 38 * 40, "b": 38 * 40, "sub/c": 62 * 50, "d": 31 * 70}
    rows = read_csv(output / "per_image.csv")
    assert {row["image"]: int(row["pixels"]) for row in rows} == pixels
    assert {row["image"]: row["mIoU"] for row in rows} == dict.fromkeys(pixels, "1.000000") | {
        "d": "0.000000"
    }
    with (output / "confusion.csv").open(encoding="utf-8") as stream:
        counts = np.array([row[1:] for row in list(csv.reader(stream))[1:]], dtype=int)
    assert counts.sum() == sum(pixels.values())
    assert counts.trace() == sum(pixels.values()) - pixels["d"]
    miou = compute_metrics(torch.from_numpy(counts)).mIoU
    assert f"\nmIoU {miou:.4f}\n" in printed
    assert "red, green, blue, nir" in printed and "rock, ice" in printed and "CPU" in printed
    names = {path.name for path in output.iterdir()}
    tables = {"metrics.csv", "confusion.csv", "confusion.png", "per_image.csv"}
    assert names == tables | {"worst_01_d.png", "worst_02_a.png"}


def test_results_stand_beside_the_weights_by_default(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    flags = ["--WEIGHTS", str(tmp_path / "run" / "best.pth"), "--WORST", "0", "--NUM_WORKERS", "0"]
    assert run(dataset, *flags) == 0
    assert (tmp_path / "run" / "evaluation_test" / "metrics.csv").is_file()


def test_mistakes_of_the_user(dataset, tmp_path, monkeypatch):
    def fails(match: str, *flags: str):
        with pytest.raises(UserError, match=match):
            run(dataset, *flags)

    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    monkeypatch.chdir(tmp_path)  # the results would stand beside x.pth
    fails("--SPLIT tset is given, .* has test; choose one", "--SPLIT", "tset")
    fails("is a file; give a folder", "--OUTPUT", str(dataset / "classes.json"))
    if UNWRITABLE.is_dir():
        fails("--OUTPUT /proc cannot be .* written into", "--OUTPUT", str(UNWRITABLE))
        fails("--SHOW_DIR /proc cannot", "--SHOW_DIR", str(UNWRITABLE), "--OUTPUT", str(tmp_path / "out"))
    names = json.dumps({"names": ["rock", "ice", "snow"]})
    (dataset / "classes.json").write_text(names, encoding="utf-8")
    fails(r"names 3 classes \(rock, ice, snow\), the checkpoint 2 \(rock, ice\)")
    (dataset / "classes.json").unlink()
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(dataset / "labels" / "a.png")
    fails("label value 7 in 1600 pixels")
    monkeypatch.setattr(Brightest, "bands", 5)
    fails(r"has 4 bands; the network was trained on 5 \(red, green, blue, nir\)")
    assert not (tmp_path / "evaluation_test").exists()


def test_names_of_classes_and_bands_that_differ_are_told(dataset):
    path = dataset / "classes.json"
    path.write_text(json.dumps({"names": ["stone", "ice"]}), encoding="utf-8")
    assert (
        "names the classes stone, ice; the checkpoint's names are used: rock, ice"
        in (compare_classes(path, CLASSES)[0])
    )
    spare = Classes(("stone", "ice", "class_2"), (*CLASSES.colors, (0, 0, 0)), {0: 0, 255: 1, 2: 2}, (9,))
    assert compare_classes(path, spare) == []
    for name in ("a", "b", "sub/c", "d"):
        with rasterio.open(dataset / "images" / f"{name}.tif", "r+") as target:
            target.descriptions = ("Blue", "green", "red", "nir")
    info = open_split(dataset, "test", spare, TrainedBands(4, ("red", None, "blue", "nir")))
    assert info.band_names == ("red", "green", "blue", "nir")
    assert any("name their bands Blue, green, red, nir, the checkpoint red, green" in n for n in info.notices)
    info = open_split(dataset, "test", spare, TrainedBands(4))
    assert not any("name their bands" in notice for notice in info.notices)
    # Where all names are known, they say where each band is.
    info = open_split(dataset, "test", spare, TrainedBands(4, ("red", "green", "blue", "nir")))
    assert not any("name their bands" in notice for notice in info.notices)
    assert info.splits["test"][0].source[0].bands == (2, 1, 0, 3)


def test_help_answers_without_torch():
    code = """
import sys, evaluate
try:
    evaluate.main(["--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    assert "--WORST" in quick_answer([sys.executable, "-c", code], ROOT)


def test_windows_and_augmentations_change_nothing_for_a_pointwise_network(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    results = []
    for number, flags in enumerate(([], ["--WINDOW", "32"], ["--TTA", "flip,rot"], ["--SHOW_DIR", "shown"])):
        output = tmp_path / str(number)
        monkeypatch.chdir(tmp_path)
        assert run(dataset, "--OUTPUT", str(output), "--WORST", "0", "--NUM_WORKERS", "0", *flags) == 0
        results.append([(output / name).read_text() for name in ("metrics.csv", "per_image.csv")])
    assert results[0] == results[1] == results[2] == results[3]
    assert "BoundaryIoU" in results[0][0].splitlines()[0]
    shown = {path.name: Image.open(path).size for path in (tmp_path / "shown").iterdir()}
    assert shown == {"a.png": (40, 40), "b.png": (40, 40), "sub_c.png": (50, 64), "d.png": (70, 33)}


def test_what_training_held_back_can_be_told_where_only_maps_are_there():
    words = ["--PREDICTIONS", "maps", "--SEED", "5", "--VAL_FRACTION", "0.3"]
    given, plain = evaluate_options(words), evaluate_options(words[:2])
    assert reading_as_trained(given, {}) == reading_of({"SEED": 5, "VAL_FRACTION": 0.3})
    trained = {"SEED": 7, "VAL_FRACTION": 0.2}
    assert reading_as_trained(plain, trained) == reading_of(trained)
    assert reading_as_trained(plain, {}) == reading_of({})


def test_maps_on_the_disk_are_judged_without_a_network(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    common = ["--DATASET_PATH", str(dataset), "--SPLIT", "test", "--WORST", "1"]
    words = ["--WEIGHTS", "x.pth", "--USE_CPU", "--NUM_WORKERS", "0", "--OUTPUT", str(tmp_path / "network")]
    assert main([*common, *words]) == 0
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("a", "b", "sub/c", "d"):
        with rasterio.open(dataset / "images" / f"{name}.tif") as source:
            ids = (source.read(1) > 100).astype(np.uint8)
        Image.fromarray(ids).save(maps / f"{name.rsplit('/', 1)[-1]}.png")
        label = np.array(Image.open(dataset / "labels" / f"{name}.png"))
        Image.fromarray(np.where(label == 255, 1, label)).save(dataset / "labels" / f"{name}.png")
    labels = json.dumps({"names": ["rock", "ice"], "ignore_index": 9})
    (dataset / "classes.json").write_text(labels, encoding="utf-8")
    monkeypatch.setattr(Structure, "load_network", lambda path: pytest.fail("a network was loaded"))
    assert main([*common, "--PREDICTIONS", str(maps)]) == 0
    for name in ("metrics.csv", "per_image.csv", "confusion.csv"):
        judged = (maps / "evaluation_test" / name).read_text()
        assert judged == (tmp_path / "network" / name).read_text()
    ids = np.array(Image.open(maps / "a.png"))
    ids[20:22] = 255
    Image.fromarray(ids).save(maps / "a.png")
    capsys.readouterr()
    assert main([*common, "--PREDICTIONS", str(maps)]) == 0
    assert "80 labelled pixels have no prediction" in capsys.readouterr().out

    def fails(match: str, *more: str):
        with pytest.raises(UserError, match=match):
            main([*common, "--PREDICTIONS", str(maps), *more])

    fails("either a network or maps are judged", "--WEIGHTS", "x.pth")
    ids[0] = 7
    Image.fromarray(ids).save(maps / "a.png")
    fails(r"a\.png holds 7 in 40 pixels; class ids from 0 to 1 are wanted")
    Image.fromarray(ids[1:]).save(maps / "a.png")
    fails(r"a\.png has 39 x 40 pixels, its image 40 x 40")
    np.save(maps / "a.npy", ids)
    fails(r"has 2 maps of a: a\.png and a\.npy; leave only")
    (maps / "a.npy").unlink()
    (maps / "a.png").unlink()
    fails(r"has no map of a; a\.tif or a\.png is wanted")
