"""Which labels are read before training, what is kept of them, and what is checked later."""

import json
import os

import numpy as np
import pytest

import utils.data.label_scan as label_scan
import utils.data.scanning as scanning
from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.dataset import SegmentationDataset
from utils.data.layout import Reading, reading_of, scan_dataset

NAMES = {"names": ["a", "b", "c"]}


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Return the list of labels that were read, with their pixels; nothing is kept of other tests."""
    monkeypatch.setenv("PURESEG_CACHE", str(tmp_path / "cache"))
    seen = []

    def spy(path, window=None, *more):
        label, valid = original(path, window, *more)
        seen.append((path.stem, label.size))
        return label, valid

    original = label_scan.read_label
    monkeypatch.setattr(label_scan, "read_label", spy)
    return seen


def scan(root, **more):
    return scan_dataset(root, progress=False, **more)


def many(monkeypatch, tmp_path, tiles=40):
    """A set of more labels than are read."""
    root = write_dataset(tmp_path / "data", tiles=tiles)
    (root / "classes.json").write_text(json.dumps(NAMES))
    for name, value in {
        "MANY": 10,
        "MOST_PIXELS": 256 * 20,
        "DRAWN_PIXELS": 256 * 10,
        "_LEAST_DRAWN": 2,
    }.items():
        monkeypatch.setattr(scanning, name, value)
    return root


def test_of_very_many_labels_some_are_read(monkeypatch, tmp_path, read):
    root = many(monkeypatch, tmp_path)
    info = scan(root)
    assert sum(size for _, size in read) <= 256 * 12 and len(read) == 11  # nine for training, two at least
    assert sum(name.startswith("v") for name, _ in read) == 2
    assert any("of 42 labels 11 drawn at random were read (26 % of the pixels)" in n for n in info.notices)
    assert len(info.splits["train"]) == 40 and info.label_counts["train"].sum() == 9 * 256
    assert info.smallest_tile == (16, 16)
    first = sorted(read)
    read.clear()
    scan(root, reading=Reading(seed=0))
    assert sorted(read) == first
    read.clear()
    scan(root, reading=Reading(seed=1))
    assert sorted(read) != first


def test_all_labels_are_read_where_they_decide_what_the_classes_are(monkeypatch, tmp_path, read):
    root = many(monkeypatch, tmp_path)
    (root / "classes.json").unlink()
    assert not any("drawn at random" in notice for notice in scan(root).notices) and len(read) == 42
    read.clear()
    assert scan(root, reading=Reading(label_map="0=0,1=1,2=2")) and len(read) < 42
    read.clear()
    classes = scan(root).classes
    read.clear()
    scan(root, classes=classes, splits=("train",))
    assert len(read) < 42
    # Crops around rare classes need to know where these are.
    read.clear()
    (root / "classes.json").write_text(json.dumps(NAMES))
    scan(root, reading=reading_of({"RARE_CLASS_SAMPLING": 0.01}))
    assert len(read) == 42


def test_what_was_not_read_is_checked_when_it_is(monkeypatch, tmp_path, read):
    root = many(monkeypatch, tmp_path)
    scan(root)
    unread = next(f"t{n}" for n in range(40) if f"t{n}" not in {name for name, _ in read})
    write_raster(root / "labels" / f"{unread}.png", np.full((16, 16), 9, np.uint8))
    info = scan(root)
    samples = info.splits["train"]
    index = [sample.name for sample in samples].index(unread)
    with pytest.raises(UserError, match=rf"{unread}\.png: .*9"):
        SegmentationDataset(samples, info.classes)[index]
    # Its size is checked at once.
    write_raster(root / "labels" / f"{unread}.png", np.zeros((16, 15), np.uint8))
    with pytest.raises(UserError, match=rf"{unread}\.png has 16 x 15 pixels"):
        scan(root)


@pytest.mark.parametrize("cells", [False, True])
def test_labels_are_not_read_again_until_they_change(monkeypatch, tmp_path, read, cells):
    monkeypatch.setattr(scanning, "WORTH_SECONDS", 0.0)
    if cells:
        monkeypatch.setattr(scanning, "LARGE", 100)
        monkeypatch.setattr(label_scan, "LARGE", 100)
    root = write_dataset(tmp_path / "data", values=(0, 1, 255), size=64)
    first = scan(root)
    assert len(read) == 5 and len(list((tmp_path / "cache").iterdir())) == 1
    again = scan(root)
    assert len(read) == 5
    assert again.splits == first.splits and again.classes == first.classes
    assert again.value_pixels == first.value_pixels and bool(again.splits["train"][0].cells) == cells
    for split in ("train", "val"):
        np.testing.assert_array_equal(again.label_counts[split], first.label_counts[split])
    write_raster(root / "labels" / "t1.png", np.ones((64, 64), np.uint8))
    assert scan(root).label_counts["train"].tolist() != first.label_counts["train"].tolist()
    assert [name for name, _ in read[5:]] == ["t1"]
    # A replaced image is looked at as well.
    stat = (root / "images" / "t2.tif").stat()
    os.utime(root / "images" / "t2.tif", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    scan(root)
    assert [name for name, _ in read[6:]] == ["t2"]


def test_a_damaged_cache_is_none(monkeypatch, tmp_path, read):
    monkeypatch.setattr(scanning, "WORTH_SECONDS", 0.0)
    root = write_dataset(tmp_path / "data")
    scan(root)
    file = next((tmp_path / "cache").iterdir())
    for text in ("{", "[]", file.read_text().replace('"counts"', '"count"')):
        file.write_text(text)
        read.clear()
        assert scan(root).bands == 3 and len(read) == 5
    monkeypatch.setenv("PURESEG_CACHE", str(root / "classes.txt"))
    (root / "classes.txt").write_text("no folder")
    assert scan(root).bands == 3


def test_short_scans_are_not_kept(tmp_path, read):
    scan(write_dataset(tmp_path / "data"))
    assert not (tmp_path / "cache").exists()
