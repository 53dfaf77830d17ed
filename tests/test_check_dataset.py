"""The doctor: files and lists, the program, how it reads pixels and places, and real sets without errors."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import tools.check_dataset as program
from tests.doctor_helpers import examined, label, noise, relabel
from tests.helpers import shared_data
from tests.tiny_dataset import write_dataset, write_list, write_raster
from utils.data.layout import scan_dataset
from utils.data.overlaps import covered_shares
from utils.data.pixels import scan_pixels
from utils.data.raster import raster_info
from utils.program import run_program


def test_a_good_set(tmp_path):
    assert examined(write_dataset(tmp_path, values=(0, 1, 2, 255))) == {}


def test_files_in_no_list(tmp_path):
    write_dataset(tmp_path)
    write_list(tmp_path, "train", ["t0", "t1"])
    found = examined(tmp_path)
    assert found["unlisted images"][0] == "note" and "images/t2.tif" in found["unlisted images"][1]
    assert "labels/t2.png" in found["unlisted labels"][1]


def test_files_without_a_partner(tmp_path):
    for folder, names in (("images", "abc"), ("masks", "bcd")):
        for name in names:
            array = noise(dtype=np.uint8, most=255) if folder == "images" else label()
            write_raster(tmp_path / folder / f"{name}.png", array)
    found = examined(tmp_path)
    assert found["images have no label"] == (
        "warning",
        "1 images have no label and are left out: images/a.png; give both files one name",
    )
    assert "masks/d.png" in found["labels have no image"][1]


def test_training_says_the_cheap_part_and_stops_at_the_first_mistake(tmp_path):
    write_dataset(tmp_path)
    write_list(tmp_path, "val", ["v0", "v1", "t1"])
    relabel(tmp_path, (1, 2, 3))
    notices = scan_dataset(tmp_path, progress=False).notices
    assert any("both train and val" in n for n in notices) and any("count from 1" in n for n in notices)


def test_the_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_dataset(tmp_path / "data", values=(0, 1, 255), size=40)
    assert run_program(program.main, [str(root)]) == 0
    text = capsys.readouterr().out
    assert "train 3, val 2" in text and "40 x 40 (5)" in text and "0 errors, 0 warnings, 0 notes" in text
    folder = tmp_path / "output" / "check_data"
    facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert sum(facts["label_values"].values()) == 5 * 40 * 40 and set(facts["label_values"]) == {
        "0",
        "1",
        "255",
    }
    assert facts["classes"]["train"]["class_1"]["images"] == 3 and facts["dtypes"] == {"uint16": 5}
    picture = np.asarray(Image.open(folder / "contact_sheet.png").convert("RGB"))
    assert picture.shape[1] > 500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    shutil.copy(root / "images" / "t0.tif", root / "images" / "v1.tif")
    assert run_program(program.main, ["--DATASET_PATH", str(root), "--OUTPUT", "out"]) == 1
    assert "error: 1 images of val have the same pixels" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "findings.csv").open(encoding="utf-8")))
    assert [(row["severity"], row["kind"], row["detail"]) for row in rows] == [
        ("error", "copies in two splits", "as t0.tif")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "holds no data set"),
        (["data", "--DATASET_PATH", "data"], "one of them is enough"),
        (["data", "--OUTPUT", "data/out"], "lies inside the data set"),
        (["data", "--LABEL_MAP", "x"], "is no rule"),
        (["data", "--BANDS", "4"], "4 bands were asked for"),
    ],
)
def test_wrong_flags(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data")
    assert run_program(program.main, words) == 2
    assert message in capsys.readouterr().err


def test_nothing_can_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_dataset(tmp_path / "data")
    for path in (root / "images").iterdir():
        path.write_bytes(b"no picture")
    assert run_program(program.main, [str(root)]) == 1
    text = capsys.readouterr().out
    assert "error: 5 images that cannot be read" in text and "no image can be read with its label" in text


def test_large_rasters_are_read_in_blocks(tmp_path, monkeypatch):
    array = noise(40, 2)
    array[:, :3] = 65535
    path = write_raster(tmp_path / "a.tif", array, nodata=65535)
    whole = scan_pixels(raster_info(path))
    monkeypatch.setattr("utils.data.pixels._BLOCK", (16, 24))
    steps = []
    parts = scan_pixels(raster_info(path), steps.append)
    assert parts[:-1] == whole[:-1] and steps == [384, 256, 384, 256, 192, 128] and sum(steps) == whole.pixels
    assert whole.maximum[0] == array[0, 3:].max() and not whole.constant


def test_covered_shares_count_no_place_twice():
    others = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [10, 10, 11, 11]], float)
    boxes = np.array([[0, 0, 4, 4], [2, 2, 4, 4], [10.5, 10, 11.5, 11]], float)
    assert covered_shares(boxes, others).tolist() == [6 / 16, 0, 0.5]


@pytest.mark.parametrize(
    ("parts", "known"),
    [
        (("formats", "voc"), {"class not in train"}),
        (("formats", "loveda"), set()),
        (("formats", "cityscapes"), {"class not in train"}),
        (("formats", "camvid-segnet"), {"class not in train"}),
        # Five dates of one place are meant to overlap; val and test are one list.
        (("s2-eopatch",), {"places in two splits", "image in two splits"}),
    ],
)
def test_real_sets_have_no_false_errors(parts, known):
    found = examined(shared_data(*parts))
    assert all(severity != "error" for severity, _ in found.values())
    assert {kind for kind, (severity, _) in found.items() if severity == "warning"} == known
