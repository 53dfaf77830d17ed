"""One scene with one label: what is held back, which windows are read, and that nothing leaks."""

import json

import numpy as np
import pytest

import evaluate
import train
from nets.errors import UserError
from tests.helpers import shared_data
from tests.tiny_dataset import write_list, write_raster
from utils.data import samples as samples_module
from utils.data.augment_level import NOTHING, Level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.layout import Reading
from utils.data.layout import scan_dataset as scan
from utils.data.rare_classes import RareClassSampling
from utils.data.raster import Window
from utils.data.samples import evaluation_samples, free_region, intersection, training_samples
from utils.data.statistics import measure_bands
from utils.data.transforms import Augmentation
from utils.program import run_program

SIZE = (640, 800)
SCENE = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def scan_dataset(root, splits=None, **reading):
    return scan(root, progress=False, splits=splits, reading=Reading(**reading))


@pytest.fixture
def scene(tmp_path):
    """A scene whose two bands tell row and column of every pixel; three classes in stripes."""
    rows, columns = np.indices(SIZE)
    write_raster(tmp_path / "scene.tif", np.stack([rows, columns]).astype(np.int16), **SCENE)
    label = ((rows // 100 + columns // 70) % 3).astype(np.uint8)
    write_raster(tmp_path / "scene_label.tif", label, **SCENE)
    return tmp_path


def label_of(root):
    rows, columns = np.indices(SIZE)
    return ((rows // 100 + columns // 70) % 3).astype(np.uint8)


def test_blocks_are_held_back_with_a_margin(scene):
    info = scan_dataset(scene)
    (whole,) = info.splits["train"]
    blocks = info.splits["val"]
    assert "(scene)" in info.found and len(blocks) > 3
    held = sum(block.height * block.width for block in blocks) / (SIZE[0] * SIZE[1])
    assert 0.08 < held < 0.14 and all(count > 0 for count in info.label_counts["val"])
    for block in blocks:
        margin = Window(block.window.top - 16, block.window.left - 16, block.height + 32, block.width + 32)
        assert not any(intersection(margin, cell) for cell in whole.cells)
        assert any(intersection(block.window, hole) == block.window for hole in whole.avoid)
    # every pixel is in training, held back or margin
    mask = np.zeros(SIZE, dtype=int)
    for cell in whole.cells:
        mask[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] += 1
    for block in blocks:
        part = block.window
        mask[part.top : part.top + part.height, part.left : part.left + part.width] += 1
    assert mask.max() == 1 and (mask == 0).mean() < 0.25
    assert info.label_counts["val"].sum() == sum(b.height * b.width for b in blocks)
    assert "blocks of" in info.notices[-1] and "--SEED 0" in info.notices[-1]


def test_the_same_blocks_are_held_back_again_and_others_by_another_seed(scene):
    windows = [sample.window for sample in scan_dataset(scene).splits["val"]]
    classes = scan_dataset(scene).classes
    again = scan(scene, progress=False, splits=("val",), classes=classes, reading=Reading())
    assert [sample.window for sample in again.splits["val"]] == windows and list(again.splits) == ["val"]
    assert [sample.window for sample in scan_dataset(scene, seed=7).splits["val"]] != windows
    (train_part,) = scan_dataset(scene, ("train",)).splits["train"]
    dataset = SegmentationDataset(evaluation_samples([train_part]), classes)
    mask = dataset[0]["mask"]
    assert all((mask[w.top : w.top + w.height, w.left : w.left + w.width] == -1).all() for w in windows)
    assert scan_dataset(scene, ("all",)).splits["all"][0].avoid == ()


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_training_windows_never_touch_what_is_held_back(scene, scale):
    info = scan_dataset(scene)
    windows = training_samples(info.splits["train"], (64, 64))
    labelled = sum(cell.height * cell.width for cell in info.splits["train"][0].cells)
    assert len(windows) == round(labelled / 64**2)
    assert sum(len(sample.cells) for sample in windows) == len(info.splits["train"][0].cells)
    dataset = SegmentationDataset(
        windows, info.classes, Augmentation((64, 64), Level("x", scale=scale), "none")
    )
    seen = np.zeros(SIZE, dtype=bool)
    for epoch in range(2):
        for index in range(len(windows)):
            item = dataset[Key(epoch, index, index)]
            image, valid, mask = item["image"], item["valid"], item["mask"]
            assert (mask >= 0).any()
            if scale == (1.0, 1.0):
                rows, columns = image[:, valid]
                seen[rows, columns] = True
                assert np.array_equal(label_of(scene)[rows, columns], mask[valid])
    (whole,) = info.splits["train"]
    assert not seen[~whole.allowed(whole.part)].any()
    if scale == (1.0, 1.0):
        assert seen[whole.allowed(whole.part)].mean() > 0.6


def test_crops_around_rare_classes_avoid_it_too(scene):
    label = np.zeros(SIZE, np.uint8)
    label[::40, ::40] = 1
    write_raster(scene / "scene_label.tif", label, **SCENE)
    info = scan_dataset(scene)
    (whole,) = info.splits["train"]
    allowed = whole.allowed(whole.part)
    assert dict(whole.class_counts)[1] == label[allowed].sum() < label.sum()
    rare = RareClassSampling([whole], info.classes, 1e-4)
    windows = training_samples([whole], (64, 64))
    dataset = SegmentationDataset(windows, info.classes, Augmentation((64, 64), NOTHING, "none"), 0, rare)
    for index in range(60):
        item = dataset[Key(0, index, index)]
        rows, columns = item["image"][:, item["valid"]]
        assert (item["mask"] == 1).any() and allowed[rows, columns].all()


def test_one_per_cent_of_labels_is_enough(scene):
    label = np.full(SIZE, 255, np.uint8)
    for top, left in ((100, 50), (400, 300), (500, 700), (30, 600)):
        label[top : top + 36, left : left + 36] = label_of(scene)[top : top + 36, left : left + 36]
    assert (label < 255).mean() < 0.011
    write_raster(scene / "scene_label.tif", label, **SCENE)
    info = scan_dataset(scene)
    assert info.label_counts["val"].sum() > 0 and info.label_counts["train"].sum() > 0
    windows = training_samples(info.splits["train"], (64, 64))
    dataset = SegmentationDataset(windows, info.classes, Augmentation((64, 64), NOTHING, "none"))
    shares = [(dataset[Key(0, i, i % len(windows))]["mask"] >= 0).mean() for i in range(40)]
    # drawn anywhere in the scene, a window would hold one per cent on average
    assert np.mean(shares) > 0.1 and np.mean([share > 0 for share in shares]) > 0.8


def test_labels_in_one_place_cannot_be_divided(scene):
    label = np.full(SIZE, 255, np.uint8)
    label[40:50, 40:50] = np.eye(10, dtype=np.uint8)
    write_raster(scene / "scene_label.tif", label)
    with pytest.raises(UserError, match=r"scene_label\.tif: the labels lie too close together"):
        scan_dataset(scene)


def test_statistics_leave_out_what_is_held_back(scene):
    info = scan_dataset(scene)
    (whole,) = info.splits["train"]
    allowed = whole.allowed(whole.part)
    statistics = measure_bands([whole], progress=False)
    assert statistics.valid_pixels == allowed.sum() < SIZE[0] * SIZE[1]
    assert statistics.mean[0] == pytest.approx(np.indices(SIZE)[0][allowed].mean())


def test_free_region():
    whole, cell = Window(0, 0, 100, 100), Window(40, 40, 10, 10)
    assert free_region(whole, cell, [Window(60, 0, 10, 10)]) == Window(0, 10, 100, 90)
    holes = [Window(0, 0, 30, 100), Window(70, 0, 30, 100), Window(30, 90, 40, 10)]
    assert free_region(whole, cell, holes) == Window(30, 0, 40, 90)


@pytest.mark.parametrize("layout", ["named", "folder", "two", "lists", "one-listed"])
def test_where_scene_and_label_may_stand(scene, layout):
    image, label = scene / "scene.tif", scene / "scene_label.tif"
    root = scene
    (scene / "elsewhere").mkdir()
    if layout == "named":
        root = f"{image},{label}"
    elif layout == "two":
        label.rename(scene / "a.tif")  # the raster with one band is the label
    elif layout != "folder":
        for path, folder in ((image, "images"), (label, "labels")):
            (scene / folder).mkdir()
            path.rename(scene / folder / "scene.tif")
        write_list(scene, "train" if layout == "one-listed" else "test", ["scene"])
    info = scan_dataset(root)
    assert len(info.splits["train"]) == 1 and len(info.splits["val"]) > 3
    if layout == "lists":
        assert [sample.window for sample in scan_dataset(root, ("test",)).splits["test"]] == [None]
    with pytest.raises(UserError, match=r"scene\.tif,missing\.tif: missing\.tif does not exist"):
        scan_dataset(f"{info.splits['train'][0].image},missing.tif")


def test_classes_json_beside_the_scene(scene):
    (scene / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"]}))
    assert scan_dataset(f"{scene / 'scene.tif'},scene_label.tif").classes.names == ("a", "b", "c")


def test_nodata_of_a_scene_label(scene):
    write_raster(scene / "scene_label.tif", label_of(scene), nodata=0, **SCENE)
    info = scan_dataset(scene)
    assert info.label_counts["val"].sum() == sum(b.height * b.width for b in info.splits["val"])
    assert info.label_counts["train"][0] > 0


def test_large_tiles_are_scenes_too(scene, monkeypatch):
    from utils.data import label_scan

    for module in (samples_module, label_scan):
        monkeypatch.setattr(module, "LARGE", 500 * 500)
    monkeypatch.setattr(samples_module, "BLOCK", 300)
    for folder, name in (("images", "scene"), ("labels", "scene_label")):
        for split in ("train", "val"):
            (scene / folder / split).mkdir(parents=True)
            (scene / folder / split / "a.tif").write_bytes((scene / f"{name}.tif").read_bytes())
    for name in ("scene", "scene_label"):
        (scene / f"{name}.tif").unlink()
    info = scan_dataset(scene)
    assert len(training_samples(info.splits["train"], (64, 64))) == round(640 * 800 / 64**2)
    blocks = evaluation_samples(info.splits["val"])
    assert len(blocks) == 9 and sum(block.height * block.width for block in blocks) == 640 * 800
    dataset = SegmentationDataset(blocks, info.classes)
    assert sum((item["mask"] >= 0).sum() for item in map(dataset.__getitem__, range(9))) == 640 * 800
    assert dataset[4]["image"][0, 0, 0] == blocks[4].window.top


def test_a_picture_as_label_of_a_scene(scene):
    rows, columns = np.indices(SIZE)
    write_raster(scene / "scene_label.tif", (rows * 3 + columns).astype(np.int16))
    with pytest.raises(UserError, match="more than 1024 different values: it seems to be a picture"):
        scan_dataset(scene)


def test_real_scene():
    info = scan_dataset(shared_data("scene-bluemarble"))
    assert info.classes.names == ("sea", "land", "lake") and info.has_crs
    total = 5400 * 2700
    assert 0.08 < info.label_counts["val"].sum() / total < 0.12 and info.label_counts["val"].min() > 0
    assert info.label_counts["train"].sum() / total > 0.7


def test_train_resume_and_evaluate(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8", "--USE_CPU"]
    words += [
        "--NUM_WORKERS",
        "0",
        "--CROP_SIZE",
        "128",
        "--BATCH_SIZE",
        "8",
        "--RUN_NAME",
        "s",
        "--SEED",
        "3",
    ]
    path = ["--DATASET_PATH", f"{scene / 'scene.tif'},scene_label.tif"]
    assert run_program(train.main, [*path, *words, "--VAL_FRACTION", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "found: scene" in text and "held back from the scene" in text and "label value  class" in text
    assert run_program(train.main, [*path, "--RESUME", "s", "--EPOCHS", "2", "--USE_CPU"]) == 0
    resumed = capsys.readouterr().out
    notice = next(line for line in text.splitlines() if line.startswith("no validation list"))
    assert notice in resumed and "--VAL_FRACTION 0.2, --SEED 3" in notice
    common = ["--WEIGHTS", "pth_files/s/last.pth", *path, "--USE_CPU", "--NUM_WORKERS", "0", "--WORST", "0"]
    pixels = {}
    for split in ("val", "all"):
        assert run_program(evaluate.main, [*common, "--SPLIT", split]) == 0
        assert f"split {split}" in capsys.readouterr().out
        table = (tmp_path / f"pth_files/s/evaluation_{split}/per_image.csv").read_text().splitlines()[1:]
        pixels[split] = sum(int(line.split(",")[3]) for line in table)
    assert pixels["all"] == SIZE[0] * SIZE[1] and 0.1 < pixels["val"] / pixels["all"] < 0.3
