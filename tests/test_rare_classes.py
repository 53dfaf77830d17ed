"""Crops around rare classes: how often, of which images, and where."""

from collections import Counter

import numpy as np
import pytest

import utils.data.rare_classes as module
from tests.tiny_dataset import write_list, write_raster
from utils.data.augment_level import Level, parse_level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.layout import scan_dataset
from utils.data.rare_classes import RareClassSampling, class_probabilities
from utils.data.transforms import Augmentation

SPECK = (37, 71)


@pytest.fixture
def info(tmp_path):
    """Four tiles of 80 x 100; class 2 is a half of tile 1 and one pixel of tile 3; 3 never occurs."""
    for index in range(4):
        label = np.zeros((80, 100), np.uint8)
        label[:, 50:] = 1
        if index == 1:
            label[40:] = 2
        if index == 3:
            label[SPECK] = 2
        write_raster(tmp_path / "images" / f"t{index}.tif", np.full((3, 80, 100), index, np.uint8))
        write_raster(tmp_path / "labels" / f"t{index}.png", label)
    write_list(tmp_path, "train", [f"t{index}" for index in range(4)])
    write_list(tmp_path, "val", ["t1"])
    return scan_dataset(tmp_path, num_classes=4, progress=False)


def test_every_sample_knows_its_class_counts(info):
    counts = [dict(sample.class_counts) for sample in info.splits["train"]]
    assert counts[0] == {0: 4000, 1: 4000} and counts[1] == {0: 2000, 1: 2000, 2: 4000}
    assert counts[3] == {0: 4000, 1: 3999, 2: 1}
    summed = np.zeros(4, int)
    for count in counts:
        for class_id, pixels in count.items():
            summed[class_id] += pixels
    assert summed.tolist() == info.label_counts["train"].tolist()


def test_class_probabilities_by_hand():
    # Shares 0.7, 0.2, 0.1: exp(3), exp(8), exp(9) at a temperature of 0.1.
    expected = np.exp([3, 8, 9]) / np.exp([3, 8, 9]).sum()
    np.testing.assert_allclose(class_probabilities(np.array([70, 20, 10]), 0.1), expected, rtol=1e-12)
    absent = class_probabilities(np.array([70, 0, 20, 10]), 0.1)
    assert absent[1] == 0 and absent[[0, 2, 3]] == pytest.approx(expected)
    assert class_probabilities(np.array([99, 1]), 1e-4).tolist() == [0, 1]
    np.testing.assert_allclose(class_probabilities(np.array([10**9, 1]), 1e9), 0.5, rtol=1e-6)


def test_frequencies_of_classes_and_images(info):
    rare = RareClassSampling(info.splits["train"], info.classes, 0.1)
    drawn = Counter(rare.draw(np.random.default_rng(seed)) for seed in range(6000))
    # Shares of 14000, 13999 and 4001 of 32000 pixels.
    shares = np.array([14000, 13999, 4001]) / 32000
    expected = np.exp((1 - shares) / 0.1) / np.exp((1 - shares) / 0.1).sum()
    for class_id, chance in enumerate(expected):
        seen = {index: count for (drawn_class, index), count in drawn.items() if drawn_class == class_id}
        assert sum(seen.values()) / 6000 == pytest.approx(chance, abs=0.02)
        assert set(seen) == ({1, 3} if class_id == 2 else {0, 1, 2, 3})
        for count in seen.values():  # all images that hold the class are alike
            assert count / sum(seen.values()) == pytest.approx(1 / len(seen), abs=0.06)


@pytest.mark.parametrize("level", ["none", "none,cat_max_ratio=0.75,rotate=30"])
def test_crops_contain_the_class_that_was_drawn(info, level):
    sampling = RareClassSampling(info.splits["train"], info.classes, 1e-4)  # always class 2
    augmentation = Augmentation((16, 24), parse_level(level), "none")
    dataset = SegmentationDataset(info.splits["train"], info.classes, augmentation, 0, sampling)
    names, specks = Counter(), set()
    for position in range(60):
        item = dataset[Key(0, position, 0)]
        names[item["name"]] += 1
        assert (item["image"][:, item["valid"]] == int(item["name"][1])).all()
        if item["name"] == "t1" or level == "none":
            assert (item["mask"] == 2).any()
        if item["name"] == "t3" and level == "none":
            specks.add(tuple(np.argwhere(item["mask"] == 2)[0]))
    assert set(names) == {"t1", "t3"} and min(names.values()) > 15
    assert len(specks) > 15 or level != "none", "the pixel may lie anywhere in the crop"


def test_the_same_draw_gives_the_same_crop_whatever_the_order(info):
    def dataset():
        sampling = RareClassSampling(info.splits["train"], info.classes, 0.05)
        augmentation = Augmentation((16, 24), Level(scale=(0.5, 2.0), cutmix=0.3, mosaic=0.3), "d4")
        return SegmentationDataset(info.splits["train"], info.classes, augmentation, 7, sampling)

    keys = [Key(epoch, position, 0) for epoch in (0, 1) for position in range(8)]
    one, other = dataset(), dataset()
    forward = {key: one[key] for key in keys}
    backward = {key: other[key] for key in reversed(keys)}
    for key in keys:
        assert all(np.array_equal(forward[key][part], backward[key][part]) for part in forward[key])
    assert len({forward[key]["image"].tobytes() + forward[key]["mask"].tobytes() for key in keys}) > 12


def test_large_labels_are_looked_through_once(info, monkeypatch):
    monkeypatch.setattr(module, "SMALL_LABEL", 1500)  # strips of 15 rows
    sampling = RareClassSampling(info.splits["train"], info.classes, 1e-4, seed=3, progress=False)
    assert set(sampling.remembered) == {0, 1, 2, 3}
    assert set(sampling.remembered[3]) == {0, 1, 2} and set(sampling.remembered[0]) == {0, 1}
    assert np.array_equal(np.unique(sampling.remembered[3][2], axis=0), [SPECK])
    half = sampling.remembered[1][2]
    assert half[:, 0].min() >= 40 and half[:, 0].max() == 79
    # Every strip's pixels are remembered alike.
    counts = np.bincount((half[:, 0] - 40) // 10, minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.07)
    again = RareClassSampling(info.splits["train"], info.classes, 1e-4, seed=3, progress=False)
    assert all(np.array_equal(again.remembered[1][c], sampling.remembered[1][c]) for c in (0, 1, 2))
    augmentation = Augmentation((16, 24), Level(), "none")
    dataset = SegmentationDataset(info.splits["train"], info.classes, augmentation, 0, sampling)
    assert all((dataset[Key(0, position, 0)]["mask"] == 2).any() for position in range(20))
