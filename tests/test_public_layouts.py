"""The layouts of public data sets, on a tiny tree each and on real excerpts."""

import numpy as np
import pytest

from nets.errors import UserError
from tests.helpers import shared_data
from tests.layout_helpers import RNG, pair, scan_dataset, sizes
from tests.tiny_dataset import write_raster
from utils.data.dataset import SegmentationDataset


def voc_tree(root, names, folder="SegmentationClass"):
    base = root / "VOCdevkit" / "VOC2012"
    for name in names:
        pair(base / "JPEGImages" / f"{name}.jpg", base / folder / f"{name}.png", (0, 15, 255))
    return base


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_voc_and_its_augmented_list(tmp_path):
    base = voc_tree(tmp_path, ["a", "b", "c"])
    lists = base / "ImageSets" / "Segmentation"
    for name, lines in (("train", ["a"]), ("val", ["c"]), ("trainval", ["a", "c"])):
        write_lines(lists / f"{name}.txt", lines)
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and info.classes.names[15] == "person"
    assert info.classes.colors[15] == (192, 128, 128) and info.classes.ignored == (255,)
    assert sizes(scan_dataset(tmp_path, ("trainval",))) == {"trainval": 2}
    with pytest.raises(UserError, match=r"--SPLIT test is given.*has train, trainval, val"):
        scan_dataset(tmp_path, ("test",))
    voc_tree(tmp_path, ["b", "c"], "SegmentationClassAug")
    write_lines(lists / "trainaug.txt", ["a", "b"])
    info = scan_dataset(tmp_path)
    assert [sample.label.parent.name for sample in info.splits["train"]] == [
        "SegmentationClass",
        "SegmentationClassAug",
    ]
    assert sizes(scan_dataset(tmp_path, label_dir="SegmentationClass")) == {"train": 1, "val": 1}


def test_ade20k(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    pair(base / "images/training/ADE_train_1.jpg", base / "annotations/training/ADE_train_1.png", (0, 1, 150))
    pair(base / "images/validation/ADE_val_1.jpg", base / "annotations/validation/ADE_val_1.png", (0, 2))
    info = scan_dataset(tmp_path)
    assert info.classes.names[0] == "class_0" and info.classes.ignored == (0,)
    assert (
        info.label_counts["train"][[0, 149]].tolist() == [80, 80] and info.label_counts["train"].sum() == 160
    )
    with pytest.raises(UserError, match="has one set of labels"):
        scan_dataset(tmp_path, label_dir="annotations")


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, kind):
    values = {"labelIds": (0, 7, 26, 33), "labelTrainIds": (0, 13, 18, 255)}[kind]
    for split, town in (("train", "ulm"), ("val", "bonn"), ("test", "rome")):
        stem = f"{town}_000001_000019"
        label = tmp_path / "gtFine" / split / town / f"{stem}_gtFine_{kind}.png"
        pair(tmp_path / "leftImg8bit" / split / town / f"{stem}_leftImg8bit.png", label, values)
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and info.classes.num_classes == 19
    assert np.flatnonzero(info.label_counts["val"]).tolist() == [0, 13, 18]
    assert info.classes.names[13] == "car" and info.splits["val"][0].name == "bonn/bonn_000001_000019"
    assert sizes(scan_dataset(tmp_path, ("test",))) == {"test": 1}


def test_camvid(tmp_path):
    base = tmp_path / "CamVid"
    for split in ("train", "val", "test"):
        pair(base / split / f"{split}1.png", base / f"{split}annot" / f"{split}1.png", (0, 10, 11))
        line = f"/SegNet/CamVid/{split}/{split}1.png /SegNet/CamVid/{split}annot/{split}1.png"
        write_lines(base / f"{split}.txt", [line])
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1, "test": 1} and info.classes.names[10] == "bicyclist"
    assert info.classes.ignored == (11,) and info.splits["val"][0].name == "val/val1"


def test_loveda(tmp_path):
    for split in ("Train", "Val"):
        for place in ("Rural", "Urban"):
            folder = tmp_path / split / place
            pair(folder / "images_png/1.png", folder / "masks_png/1.png", (0, 1, 7))
    write_raster(tmp_path / "Test/Rural/images_png/9.png", np.zeros((3, 16, 16), np.uint8))
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 2, "val": 2} and info.classes.table[7] == 6
    assert {sample.name for sample in info.splits["val"]} == {"Rural/1", "Urban/1"}


ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


def test_potsdam(tmp_path):
    for tile in ("2_10", "7_7", "2_13"):
        label = tmp_path / "5_Labels_all" / f"top_potsdam_{tile}_label.tif"
        pair(tmp_path / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif", label, colors=[*ISPRS, (252, 255, 0)])
        image = RNG.integers(0, 255, (4, 16, 16)).astype(np.uint8)
        write_raster(
            tmp_path / "4_Ortho_RGBIR" / f"top_potsdam_{tile}_RGBIR.tif", image, photometric="MINISBLACK"
        )
    info = scan_dataset(tmp_path)
    # 2_13 was the contest's test; one of the two others is held back
    assert sizes(info) == {"train": 1, "val": 1, "test": 1} and info.bands == 3
    assert info.splits["test"][0].name == "top_potsdam_2_13_RGB"
    assert info.label_counts["test"].tolist() == [48, 48, 32, 32, 64, 32]
    mask = SegmentationDataset(info.splits["test"], info.classes)[0]["mask"]
    assert mask[0, :7].tolist() == [0, 1, 2, 3, 4, 5, 4]
    assert scan_dataset(tmp_path / "4_Ortho_RGBIR").bands == 4
    without = scan_dataset(tmp_path, label_map="#ff0000=ignore").classes
    assert without.names == ("impervious surfaces", "building", "low vegetation", "tree", "car")


def test_vaihingen(tmp_path):
    root = tmp_path / "ISPRS_semantic_labeling_Vaihingen"
    for area in (1, 3, 2):
        name = f"top_mosaic_09cm_area{area}.tif"
        label = root / "gts_for_participants" / name
        pair(root / "top" / name, label, colors=[*ISPRS, (0, 0, 0)])
    (root / "gts_for_participants" / "top_mosaic_09cm_area2.tif").unlink()
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and "1 tiles of" in info.notices[0]
    assert info.classes.ignored == (0,)


@pytest.mark.parametrize(
    ("folder", "name", "expected", "classes"),
    [
        ("voc", "voc", {"train": 2, "val": 1}, 21),
        ("ade20k", "ade20k", {"train": 1, "val": 2}, 150),
        ("cityscapes", "cityscapes", {"train": 3, "val": 2}, 19),
        ("camvid-segnet", "camvid", {"train": 2, "val": 1, "test": 1}, 11),
        ("loveda", "loveda", {"train": 2, "val": 1}, 7),
    ],
)
def test_real_excerpts(folder, name, expected, classes):
    info = scan_dataset(shared_data("formats", folder))
    assert sizes(info) == expected and info.classes.num_classes == classes and f"({name})" in info.found
    assert info.splits == scan_dataset(shared_data("formats", folder), format=name).splits


def test_real_names_of_ade20k():
    names = scan_dataset(shared_data("formats", "ade20k")).classes.names
    assert names[:4] == ("wall", "building", "sky", "floor") and len(set(names)) == 150
