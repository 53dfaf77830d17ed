"""Programs that bring public data sets into a layout that is read."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.helpers import shared_data
from tests.tiny_dataset import write_raster
from tools import prepare_dataset, voc_aug
from utils.data.layout import scan_dataset
from utils.program import run_program


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_sbd(root, train, val):
    """Write a tree of SBD whose mask of a name is full of the name's number."""
    for name in (*train, *val):
        mask = np.full((20, 30), int(name), np.uint8)
        (root / "cls").mkdir(parents=True, exist_ok=True)
        savemat(
            root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": mask, "CategoriesPresent": [int(name)]}}
        )
        write_raster(root / "img" / f"{name}.jpg", np.zeros((3, 20, 30), np.uint8))
    write_lines(root / "train.txt", train)
    write_lines(root / "val.txt", val)


def test_voc_aug(tmp_path, capsys):
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    write_lines(lists / "train.txt", ["1", "2"])
    write_lines(lists / "val.txt", ["3"])
    for name in "12345":
        write_raster(voc / "JPEGImages" / f"{name}.jpg", np.zeros((3, 20, 30), np.uint8))
    for name in "123":
        write_raster(voc / "SegmentationClass" / f"{name}.png", np.full((20, 30), 20, np.uint8))
    # SBD has images of VOC's training part and of its validation part too
    write_sbd(tmp_path / "benchmark_RELEASE" / "dataset", ["1", "4"], ["3", "5"])
    words = [str(tmp_path / "VOCdevkit"), str(tmp_path / "benchmark_RELEASE")]
    assert run_program(voc_aug.main, words) == 0
    assert (lists / "trainaug.txt").read_text().split() == ["1", "2", "4", "5"]
    info = scan_dataset(tmp_path / "VOCdevkit", progress=False)
    assert [sample.name for sample in info.splits["train"]] == ["1", "2", "4", "5"]
    assert info.label_counts["train"][[4, 5, 20]].tolist() == [600, 600, 1200]
    assert "trainaug.txt: 4 images; the full sets have 10,582" in capsys.readouterr().out
    (voc / "JPEGImages" / "4.jpg").unlink()
    assert run_program(voc_aug.main, words) == 2
    assert "lacks 1 of the images, e.g. 4.jpg" in capsys.readouterr().err
    assert run_program(voc_aug.main, words[:1] * 2) == 2
    (tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "5.mat").write_bytes(b"damaged")
    (voc / "SegmentationClassAug" / "5.png").unlink()
    write_raster(voc / "JPEGImages" / "4.jpg", np.zeros((3, 20, 30), np.uint8))
    assert run_program(voc_aug.main, words) == 2
    assert "5.mat cannot be read as a mask of SBD" in capsys.readouterr().err


def test_voc_aug_on_the_real_excerpt(tmp_path):
    source = shared_data("formats")
    for name in ("voc", "sbd"):
        shutil.copytree(source / name, tmp_path / name, copy_function=shutil.copyfile)
    for folder in (tmp_path, *tmp_path.rglob("*")):
        folder.chmod(0o755)
    names = voc_aug.augment(tmp_path / "voc" / "VOCdevkit", tmp_path / "sbd" / "benchmark_RELEASE")
    assert names == ["2011_000003", "2011_000006"]
    own = Image.open(tmp_path / "voc/VOCdevkit/VOC2012/SegmentationClass/2011_000003.png")
    from tools.sbd import read_mask, write_mask

    mask = read_mask(tmp_path / "sbd/benchmark_RELEASE/dataset/cls/2011_000003.mat")
    void = np.array(own) == 255
    assert np.array_equal(np.where(void, 0, np.array(own)), mask)
    write_mask(tmp_path / "a.png", mask)
    again = Image.open(tmp_path / "a.png")
    assert again.mode == "P" and np.array_equal(np.array(again), mask)
    assert again.getpalette()[:63] == own.getpalette()[:63]


def test_prepare_pet(tmp_path, capsys):
    source = tmp_path / "oxford-iiit-pet"
    for name in ("cat_1", "cat_2", "dog_1"):
        write_raster(source / "images" / f"{name}.jpg", np.zeros((3, 12, 12), np.uint8))
        trimap = np.repeat(np.array([1, 2, 3], np.uint8), 48).reshape(12, 12)
        write_raster(source / "annotations" / "trimaps" / f"{name}.png", trimap)
    write_lines(source / "annotations" / "trainval.txt", ["cat_1 1 1 1", "cat_2 1 1 1"])
    write_lines(source / "annotations" / "test.txt", ["dog_1 2 2 1"])
    assert run_program(prepare_dataset.main, ["pet", "--ROOT", str(tmp_path)]) == 0
    assert f"train.py --DATASET_PATH {tmp_path / 'pet'}" in capsys.readouterr().out
    info = scan_dataset(tmp_path / "pet", progress=False)
    assert {split: len(samples) for split, samples in info.splits.items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
    assert info.classes.names == ("background", "pet") and info.label_counts["test"].tolist() == [48, 48]


def test_prepare_sbd(tmp_path):
    write_sbd(tmp_path / "sbd" / "source", ["1", "4"], ["5"])
    folder = prepare_dataset.prepare_sbd(tmp_path)
    info = scan_dataset(folder, progress=False)
    assert info.label_counts["val"][5] == 600 and info.classes.names[5] == "bottle"


def test_prepare_what_is_there_already(tmp_path, capsys):
    (tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass").mkdir(parents=True)
    assert prepare_dataset.prepare_voc(tmp_path) == tmp_path / "VOCdevkit"
    assert run_program(prepare_dataset.main, ["cityscapes", "--ROOT", str(tmp_path)]) == 2
    assert "leftImg8bit_trainvaltest.zip" in capsys.readouterr().err
    for split in ("train", "val"):
        stem = f"ulm/{split}_000001_000019"
        write_raster(tmp_path / f"leftImg8bit/{split}/{stem}_leftImg8bit.png", np.zeros((3, 8, 8), np.uint8))
        label = np.full((8, 8), 7, np.uint8)
        write_raster(tmp_path / f"gtFine/{split}/{stem}_gtFine_labelIds.png", label)
        write_raster(tmp_path / f"gtFine/{split}/{stem}_gtFine_instanceIds.png", label)
    assert run_program(prepare_dataset.main, ["cityscapes", "--ROOT", str(tmp_path)]) == 0
    assert "gtFine labelIds: train 1, val 1" in capsys.readouterr().out


@pytest.mark.parametrize("program", [voc_aug, prepare_dataset])
def test_help(program, capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert "usage" in capsys.readouterr().out
