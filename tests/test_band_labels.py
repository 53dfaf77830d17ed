"""Labels whose bands are classes: reading, classes, counts, crops, and what is wrong with them."""

import numpy as np
import pytest

from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.augment_level import parse_level
from utils.data.band_labels import read_band_label
from utils.data.dataset import Key, SegmentationDataset
from utils.data.label_scan import inspect
from utils.data.layout import Reading, scan_dataset
from utils.data.layouts.base import Entry
from utils.data.loaders import collate, to_device
from utils.data.masks import MaskWindows, class_pixels
from utils.data.rare_classes import RareClassSampling
from utils.data.raster import Window
from utils.data.scan_cache import ScanCache
from utils.data.transforms import Augmentation

NAMES = ("road", "tree", "water", "shade")


def presence(seed: int = 0, size: int = 16, bands: int = 4) -> np.ndarray:
    """Return bands (K, H, W) of blocks of 0 and 1 that overlap, with 255 in some places of some bands."""
    rng = np.random.default_rng(seed)
    label = (rng.random((bands, size // 4, size // 4)) < 0.4).astype(np.uint8)
    label = label.repeat(4, 1).repeat(4, 2)
    label[1, :2, :3] = 255
    return label


def write_labels(root, make=presence, suffix=".tif", **profile):
    """Write a data set of three training and two validation tiles with such labels."""
    write_dataset(root, bands=2)
    for index, path in enumerate(sorted((root / "labels").iterdir())):
        path.unlink()
        write_raster(path.with_suffix(suffix), make(index), **profile)
    return root


def scan(root, **more):
    return scan_dataset(root, reading=Reading(task="multilabel"), progress=False, **more)


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png"])
def test_every_band_is_a_class(tmp_path, suffix):
    bands = 3 if suffix == ".png" else 4
    more = {"descriptions": NAMES} if suffix == ".tif" else {}
    info = scan(write_labels(tmp_path, lambda seed: presence(seed, bands=bands), suffix, **more))
    assert info.classes.multilabel and info.classes.task == "multilabel"
    assert info.classes.names == (NAMES if more else tuple(f"class_{k}" for k in range(bands)))
    truth = np.stack([presence(index, bands=bands) for index in range(3)])
    assert info.label_counts["train"].tolist() == (truth == 1).sum((0, 2, 3)).tolist()
    assert info.labelled["train"].tolist() == (truth != 255).sum((0, 2, 3)).tolist()
    item = SegmentationDataset(info.splits["train"], info.classes)[1]
    assert item["mask"].dtype == np.int16
    assert np.array_equal(item["mask"], np.where(truth[1] == 255, -1, truth[1].astype(int)))
    assert info.classes == type(info.classes).from_dict(info.classes.to_dict())


def test_no_data_is_ignored_band_by_band_and_zero_is_absent(tmp_path):
    label = presence().astype(np.int16)
    label[2, 5] = -9
    values, valid = read_band_label(write_raster(tmp_path / "a.tif", label, nodata=-9))
    assert np.array_equal(~valid, label == -9) and np.array_equal(values, label)
    path = write_raster(tmp_path / "b.tif", label.clip(min=0), nodata=0)
    assert read_band_label(path, class_values={0, 1})[1].all()
    part = read_band_label(path, Window(2, 3, 4, 5))[0]
    assert np.array_equal(part, label.clip(min=0)[:, 2:6, 3:8])
    empty = presence()
    empty[3] = 0  # GDAL calls the fourth band of bytes alpha
    assert read_band_label(write_raster(tmp_path / "c.tif", empty, photometric="RGB", alpha="YES"))[1].all()


def test_0_and_255_mean_absent_and_present(tmp_path):
    info = scan(write_labels(tmp_path, lambda seed: presence(seed).clip(max=1) * np.uint8(255)))
    assert info.classes.table == {0: 0, 255: 1} and "255 is read as present" in info.notices[-1]


def test_a_label_map_says_what_is_present(tmp_path):
    root = write_labels(tmp_path, lambda seed: presence(seed) * np.uint8(2))  # 510 - 256 is 254
    reading = Reading(task="multilabel", label_map="2=1,254=ignore")
    info = scan_dataset(root, reading=reading, progress=False)
    expected = (np.stack([presence(index) for index in range(3)]) == 1).sum((0, 2, 3))
    assert info.label_counts["train"].tolist() == expected.tolist()
    with pytest.raises(UserError, match="the classes are the bands"):
        scan_dataset(root, reading=reading._replace(label_map="2=water"), progress=False)


MISTAKES = {
    "values": ({}, lambda seed: presence(seed) * np.uint8(3), "holds the value 3 .*leave out --TASK"),
    "count": ({}, lambda seed: presence(seed, bands=3 + (seed == 4)), "4 bands and 3 are wanted"),
    "flag": ({"num_classes": 5}, presence, "--NUM_CLASS 5 says 5 classes, the labels have 4 bands"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes(tmp_path, kind):
    more, make, message = MISTAKES[kind]
    with pytest.raises(UserError, match=message):
        scan(write_labels(tmp_path, make), **more)


def test_one_class_of_several_bands_is_told_of_the_flag(tmp_path):
    with pytest.raises(UserError, match=r"4 bands of uint8; .*give --TASK multilabel"):
        scan_dataset(write_labels(tmp_path), progress=False)


def test_crops_keep_image_and_mask_together(tmp_path):
    root = write_labels(tmp_path)
    for index, path in enumerate(sorted((root / "images").iterdir())):
        truth = presence(index)  # the image is what the label says
        write_raster(path, np.concatenate([truth, truth[:1] * 0]).astype(np.float32))
    info = scan(root)
    level = parse_level("light,rotate=0,scale=1:1,cutmix=0.5")
    dataset = SegmentationDataset(info.splits["train"], info.classes, Augmentation((20, 24), level, "d4"))
    batch = collate([dataset[Key(0, position, position % 3)] for position in range(6)])
    images, masks = to_device(batch, "cpu")
    valid = ~images.isnan().any(1)
    assert masks.shape == (6, 4, 20, 24) and (~valid).any()
    assert (masks.amax(1)[~valid] == -1).all(), "padding is ignored in every class"
    expected = images[:, :4].nan_to_num(-1).long()
    expected[expected == 255] = -1
    assert (masks == expected).all()


def test_rotation_and_scale_move_every_plane(tmp_path):
    info = scan(write_labels(tmp_path, lambda seed: presence(seed)[[0, 0, 2, 0]]))
    level = parse_level("strong,rotate=30,cat_max_ratio=0.5")
    dataset = SegmentationDataset(info.splits["train"], info.classes, Augmentation((16, 16), level, "d4"))
    masks = [dataset[Key(0, position, position % 3)]["mask"] for position in range(8)]
    for mask in masks:
        assert mask.shape == (4, 16, 16) and set(np.unique(mask)) <= {-1, 0, 1}
        assert np.array_equal(mask[0], mask[1]) and np.array_equal(mask[0], mask[3])
    assert any(not np.array_equal(mask[0], mask[2]) for mask in masks)


def test_what_a_mask_shows():
    mask = np.array([[[1, 1, 0, -1]], [[0, 1, 0, -1]]], dtype=np.int16)
    counts, labelled = class_pixels(mask)
    assert counts.tolist() == [2, 1, 1] and labelled == 3, "the last is of pixels without a class"


@pytest.mark.parametrize("small", [True, False])
def test_crops_around_a_rare_class(tmp_path, monkeypatch, small):
    def make(seed):
        label = np.zeros((2, 16, 16), np.uint8)
        label[0, :8] = 1
        label[1, 3, 2 + seed] = 1
        return label

    info = scan(write_labels(tmp_path, make))
    if not small:
        monkeypatch.setattr("utils.data.rare_classes.SMALL_LABEL", 20)
    rare = RareClassSampling(info.splits["train"], info.classes, 0.01, progress=False)
    assert rare.probabilities[1] > 0.99
    sample = info.splits["train"][2]
    found = rare.positions(2, 1, MaskWindows(sample, info.classes))
    assert np.unique(found, axis=0).tolist() == [[3, 4]]


def test_a_scene_is_divided_by_what_is_labelled(tmp_path, monkeypatch):
    label = np.zeros((2, 640, 640), np.uint8)
    label[0, :, 300:330] = 1
    label[1, 200:260] = 1
    label[:, :, 576:] = 255
    write_raster(tmp_path / "scene.tif", np.random.default_rng(0).random((2, 640, 640)).astype(np.float32))
    write_raster(tmp_path / "label.tif", label)
    info = scan(f"{tmp_path}/scene.tif,{tmp_path}/label.tif")
    assert info.labelled["val"].min() > 0 and info.label_counts["train"].min() > 0
    held = info.labelled["val"][0] / (640 * 576)
    assert 0.07 < held < 0.15, "labelled, not present, is what is held back"
    cells = info.splits["train"][0].cells
    assert max(cell.left + cell.width for cell in cells) == 576
    entry = Entry("scene", tmp_path / "scene.tif", tmp_path / "label.tif")
    monkeypatch.setenv("PURESEG_CACHE", str(tmp_path / "cache"))
    first, how = inspect(entry, bands=True, cells=True)[1], (False, True, True)
    cache = ScanCache(tmp_path)
    cache.add(entry, how, first)
    cache.save()
    again = ScanCache(tmp_path).find(entry, how)
    assert again.counts == first.counts and again.names == (None, None)
    assert [band.counts for band in again.bands] == [band.counts for band in first.bands]
    assert (again.bands[1].cells.counts[1] == first.bands[1].cells.counts[1]).all()
