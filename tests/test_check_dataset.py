"""The doctor: a small data set per mistake, and real ones without a false alarm."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import from_origin

import tools.check_dataset as program
from tests.helpers import shared_data
from tests.tiny_dataset import write_dataset, write_list, write_raster
from tools.check_report import examine
from utils.data.layout import scan_dataset
from utils.data.overlaps import covered_shares
from utils.data.pixels import scan_pixels
from utils.data.raster import raster_info
from utils.flags import DATA, HARDWARE
from utils.options import parse
from utils.program import run_program

RNG = np.random.default_rng(1)


def examined(root, *words):
    """Return the findings as kind -> (severity, text)."""
    options = parse("", (program.CHECK, DATA, HARDWARE), ["--DATASET_PATH", str(root), *words])
    _, _, findings = examine(options)
    assert all("\n" not in finding.line() for finding in findings)
    return {finding.kind: (finding.severity, finding.text(root)) for finding in findings}


def noise(size=16, bands=3, dtype=np.uint16, most=4000):
    return RNG.integers(0, most, (bands, size, size)).astype(dtype)


def label(values=(0, 1, 2), dtype=np.uint8):
    return np.resize(np.repeat(np.array(values, dtype=dtype), 2), (16, 16))


def relabel(root, values, splits="tv", dtype=np.uint8):
    for path in sorted((root / "labels").iterdir()):
        if path.name[0] in splits:
            write_raster(path, label(values, dtype))


def place(root, name, left, crs="EPSG:32633", pixel=10):
    transform = from_origin(500000 + left * pixel, 5000000, pixel, pixel)
    write_raster(root / "images" / f"{name}.tif", noise(), crs=crs, transform=transform)


def test_a_good_set(tmp_path):
    assert examined(write_dataset(tmp_path, values=(0, 1, 2, 255))) == {}


def unreadable(root):
    (root / "images" / "t0.tif").write_bytes(b"II*\0nonsense")
    (root / "labels" / "v0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "images" / "t1.tif").write_bytes((root / "images" / "t1.tif").read_bytes()[:700])
    return {
        "unreadable image": ("error", "2 images .*t0.tif.*t1.tif"),
        "unreadable label": ("error", "v0.png"),
    }


def damaged_in_the_middle(root):
    path = root / "images" / "t0.tif"
    options = {"compress": "deflate", "blockysize": 16}
    data = write_raster(path, noise(64), **options).read_bytes()
    write_raster(root / "labels" / "t0.png", np.resize(label(), (64, 64)))
    # Four strips of about 5,300 bytes, of which the last is whole: the scan of training reads that one.
    path.write_bytes(data[:6000] + b"\xff" * 9000 + data[15000:])
    scan_dataset(root, progress=False)
    return {"unreadable image": ("error", "images/t0.tif")}


def missing(root):
    (root / "images" / "t0.tif").unlink()
    (root / "labels" / "v1.png").unlink()
    write_raster(root / "images" / "t1.png", noise(dtype=np.uint8, most=255))
    return {
        "image missing": ("error", r"1 names without an image: images/t0 \(train.txt\)"),
        "label missing": ("error", r"labels/v1 \(val.txt\)"),
        "several files": ("error", r"t1.png and t1.tif"),
    }


def label_size_and_kind(root):
    write_raster(root / "labels" / "t0.png", np.zeros((8, 16), np.uint8))
    (root / "labels" / "t1.png").unlink()
    write_raster(root / "labels" / "t1.jpg", label())
    (root / "labels" / "v1.png").unlink()
    write_raster(root / "labels" / "v1.tif", np.zeros((2, 16, 16), np.uint8))
    return {
        "label size": ("error", r"labels/t0.png \(8 x 16, its image 16 x 16\)"),
        "JPEG label": ("error", "labels/t1.jpg"),
        "label bands": ("error", r"v1.tif \(2 bands of uint8\)"),
    }


def value_out_of_range(root):
    (root / "classes.json").write_text('{"num_classes": 3}')
    wrong = label()
    wrong[0, :5] = 7
    write_raster(root / "labels" / "t1.png", wrong)
    write_raster(root / "labels" / "v1.png", label((0, 9)))
    return {"label value": ("error", r"2 labels.*t1.png \(7 in 5 pixels; .*v1.png \(9 in 128 pixels")}


def zero_and_255_ignored(root):
    (root / "classes.json").write_text('{"names": ["land", "water"]}')
    relabel(root, (0, 255))
    return {
        "labels 0 and 255": ("error", "5 labels .*water has no pixel at all"),
        "one class": ("error", "land"),
    }


def some_masks_of_255(root):
    relabel(root, (0, 1))
    write_raster(root / "labels" / "t1.png", label((0, 255)))
    return {"labels 0 and 255": ("warning", r"1 labels .*other labels hold 1: labels/t1.png")}


def counted_from_one(root):
    relabel(root, (1, 2, 3))
    return {"labels from 1": ("warning", r"1\.\.3 and never 0.*0=ignore,1=0,2=1,3=2")}


def class_missing_in_train(root):
    relabel(root, (0, 1), "t")
    relabel(root, (1, 2), "v")
    return {
        "class not in train": ("warning", r"1 of 3 classes \(class_2\) never occur in train, but in val"),
        "class not in split": ("note", r"\(class_0\) never occur in val"),
    }


def one_class(root):
    relabel(root, (1,), "t")
    return {"one class": ("error", "every labelled pixel of train is class_1")}


def uneven(root):
    for path in (root / "labels").iterdir():
        mask = np.zeros((64, 64), np.uint8)
        mask[0, :2] = 1
        write_raster(path, mask)
        write_raster(root / "images" / f"{path.stem}.tif", noise(64))
    return {"uneven classes": ("note", r"class_0 100.0 %, class_1 0.049 %")}


def blank_labels(root):
    write_raster(root / "labels" / "t1.png", label((255,)))
    return {"blank labels": ("warning", "1 of 3 labels of train.*labels/t1.png")}


def split_without_labels(root):
    relabel(root, (255,), "v")
    return {"nothing labelled": ("error", "val.txt")}


def same_image_in_two_splits(root):
    write_list(root, "val", ["v0", "v1", "t1"])
    write_list(root, "train", ["t0", "t1", "t2", "t0"])
    return {
        "image in two splits": ("error", "1 images are in both train and val: images/t1.tif"),
        "image twice": ("warning", "images/t0.tif"),
    }


def copies(root):
    shutil.copy(root / "images" / "t0.tif", root / "images" / "v1.tif")
    image = noise()
    write_raster(root / "images" / "t1.tif", image)
    write_raster(root / "images" / "t2.tif", image, compress="lzw")
    write_raster(root / "labels" / "t2.png", label((0, 1, 1)))
    return {
        "copies in two splits": ("error", r"1 images of val .*images/v1.tif \(as t0.tif\)"),
        "copies in a split": ("warning", r"t2.tif \(as t1.tif, but with another label\)"),
    }


def places(root):
    for name, left in (("t0", 0), ("t1", 16), ("t2", 100), ("v0", 24), ("v1", 200)):
        place(root, name, left)
    return {"places in two splits": ("warning", r"1 of 2 images of val .*25 % .*v0.tif \(50 % of its area\)")}


def references(root):
    place(root, "t0", 0)
    place(root, "t1", 100, pixel=30)
    place(root, "v0", 0, crs="EPSG:4326", pixel=0.0001)
    return {
        "CRS": ("warning", "3 coordinate reference systems"),
        "pixel size": ("warning", "10 metre.*30 metre"),
    }


def misplaced_label(root):
    where = {"crs": "EPSG:32633", "transform": from_origin(500030, 5000000, 10, 10)}
    place(root, "t0", 0)
    (root / "labels" / "t0.png").unlink()
    write_raster(root / "labels" / "t0.tif", label(), **where)
    return {"label place": ("error", r"labels/t0.tif \(up to 3 pixels beside\)")}


def empty_images(root):
    write_raster(root / "images" / "t0.tif", np.zeros((3, 16, 16), np.uint16))
    write_raster(root / "images" / "t1.tif", np.zeros((3, 16, 16), np.uint16), nodata=0)
    nearly = np.zeros((3, 16, 16), np.uint16)
    nearly[:, 0, :3] = (5, 6, 7)
    write_raster(root / "images" / "v0.tif", nearly, nodata=0)
    return {
        "constant image": ("warning", r"1 of 3 images of train .*t0.tif \(0\)"),
        "no data": ("warning", "1 of 3 images of train .*t1.tif"),
        "nearly no data": ("warning", r"v0.tif \(1.2 % valid\)"),
    }


def dtypes_scales_and_nan(root):
    image = noise().astype(np.float32) / 4000
    image[1, :4] = np.nan
    write_raster(root / "images" / "t0.tif", image)
    return {
        "dtypes": ("warning", "uint16 in 4, float32 in 1"),
        "NaN": ("note", r"t0.tif \(25 %\)"),
        "scale": ("warning", "t0.tif"),
    }


def bands(root):
    write_raster(root / "images" / "t0.tif", noise(bands=2))
    image = noise()
    for name in ("t1", "t2"):
        image[2] = 7
        write_raster(
            root / "images" / f"{name}.tif", image + (name == "t2") * np.array([1, 1, 0])[:, None, None]
        )
    return {"bands": ("error", r"t0.tif \(2 instead of 3\)"), "constant band": ("note", "band_3")}


def colours(root):
    for path in (root / "labels").iterdir():
        write_raster(path, noise(dtype=np.uint8, most=255))
    return {"label colours": ("error", "colours in all")}


MISTAKES = (
    *(unreadable, damaged_in_the_middle, missing, label_size_and_kind, value_out_of_range),
    *(zero_and_255_ignored, some_masks_of_255, counted_from_one, class_missing_in_train, one_class, uneven),
    *(blank_labels, split_without_labels, same_image_in_two_splits, copies, places, references),
    *(misplaced_label, empty_images, dtypes_scales_and_nan, bands, colours),
)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_mistakes_are_found(tmp_path, mistake):
    expected = mistake(write_dataset(tmp_path))
    found = examined(tmp_path)
    for kind, (severity, pattern) in expected.items():
        assert kind in found, found
        assert found[kind][0] == severity and re.search(pattern, found[kind][1]), found[kind]


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
