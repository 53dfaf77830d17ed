"""Mosaic, CutMix, cut-out, and crops without one class nearly everywhere."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from tests.tiny_dataset import write_raster
from utils.data.augment_level import Level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.labels import IGNORE, Classes
from utils.data.layout import Sample
from utils.data.masks import MaskWindows
from utils.data.mixing import Crop, cut_out, draw_patches, join
from utils.data.photometric import BandRanges
from utils.data.raster import Window
from utils.data.transforms import Augmentation

SIDE = 60
EACH = SIDE * SIDE
COUNT = 4


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """Samples whose images say sample, row and column, and whose labels say the same in one number."""
    folder = tmp_path_factory.mktemp("coded")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    samples = []
    for index in range(COUNT):
        image = np.stack([np.full_like(rows, index), rows, columns]).astype(np.float32)
        label = (index * EACH + rows * SIDE + columns).astype(np.uint16)
        image_path = write_raster(folder / f"{index}.tif", image)
        label_path = write_raster(folder / f"label_{index}.tif", label)
        samples.append(Sample(str(index), image_path, label_path, SIDE, SIDE))
    count = COUNT * EACH
    return samples, Classes(
        ("c",) * count, ((0, 0, 0),) * count, {value: value for value in range(count)}, ()
    )


@pytest.mark.parametrize("bits", [{"cutmix": 1.0}, {"mosaic": 1.0}, {"cutmix": 0.5, "mosaic": 0.5}])
@pytest.mark.parametrize("flip", ["none", "d4"])
def test_every_pixel_keeps_its_own_class(coded, bits, flip):
    samples, classes = coded
    level = Level(scale=(0.7, 2.0), rotate=30, **bits)
    dataset = SegmentationDataset(samples, classes, Augmentation((40, 52), level, flip))
    partners = Counter()
    for position in range(60):
        item = dataset[Key(0, position, position % COUNT)]
        image, good, mask = item["image"], item["valid"], item["mask"]
        assert image.shape == (3, 40, 52) and mask.shape == good.shape == (40, 52)
        assert (mask[~good] == IGNORE).all() and (image[:, ~good] == 0).all()
        index, place = np.divmod(mask[good], EACH)
        rows, columns = np.divmod(place, SIDE)
        assert np.abs(image[0][good] - index).max() < 1e-3
        assert np.abs(image[1][good] - rows).max() <= 0.501
        assert np.abs(image[2][good] - columns).max() <= 0.501
        partners[len(np.unique(index))] += 1
        assert item["name"] == str(position % COUNT)
    assert max(partners) == (2 if "mosaic" not in bits else max(partners)) and max(partners) >= 2
    if "mosaic" in bits and "cutmix" not in bits:
        assert max(partners) > 2


def test_samples_are_mixed_as_often_as_asked_for():
    level = Level(cutmix=0.3, mosaic=0.2)
    counts = Counter()
    for seed in range(2000):
        patches = draw_patches(np.random.default_rng(seed), (33, 47), level)
        counts[len(patches)] += 1
        covered = np.zeros((33, 47), int)
        for top, left, height, width in patches:
            assert height > 0 and width > 0 and top + height <= 33 and left + width <= 47
            covered[top : top + height, left : left + width] += 1
        assert covered.min() >= 1 and (covered.max() == 1 or len(patches) == 2)
        if len(patches) == 4:
            assert min(patch.height for patch in patches) >= 8 and min(patch.width for patch in patches) >= 11
    assert counts[4] / 2000 == pytest.approx(0.2, abs=0.03)
    assert counts[2] / 2000 == pytest.approx(0.3, abs=0.03)
    for size in ((1, 1), (1, 50), (2, 2), (3, 2)):
        for seed in range(50):
            patches = draw_patches(np.random.default_rng(seed), size, Level(mosaic=0.5, cutmix=0.5))
            assert all(patch.height > 0 and patch.width > 0 for patch in patches)


def test_a_cutmix_rectangle_has_a_uniform_share_of_the_area():
    drawn = [draw_patches(np.random.default_rng(s), (200, 200), Level(cutmix=1))[1] for s in range(2000)]
    shares = np.sort([patch.height * patch.width / 200**2 for patch in drawn])
    assert np.abs(shares - np.linspace(0, 1, 2000)).max() < 0.04


def test_images_of_several_dtypes_are_joined_in_one_that_holds_both():
    crops = [
        Crop(
            np.full((1, side, side), value, dtype),
            np.ones((side,) * 2, bool),
            np.zeros((side,) * 2, np.int16),
        )
        for value, dtype, side in ((200, np.uint8, 2), (-5, np.int16, 1))
    ]
    joined = join(crops, [Window(0, 0, 2, 2), Window(1, 1, 1, 1)], (2, 2))
    assert joined.image.dtype == np.int16 and joined.image.ravel().tolist() == [200, 200, 200, -5]


@pytest.mark.parametrize("bands", [1, 3, 10])
def test_a_cut_out_rectangle_holds_the_means_and_keeps_its_classes(bands):
    fill = np.arange(bands) + 40.4
    sides = []
    for seed in range(200):
        crop = Crop(
            np.full((bands, 40, 60), 9, np.uint8),
            np.random.default_rng(0).random((40, 60)) > 0.1,
            np.arange(2400).reshape(40, 60).astype(np.int16),
        )
        crop.image[:, ~crop.valid] = 0
        valid, mask = crop.valid.copy(), crop.mask.copy()
        cut_out(crop, Level(cutout=0.5), fill, np.random.default_rng(seed))
        assert crop.image.dtype == np.uint8 and (crop.image[:, ~valid] == 0).all()
        assert np.array_equal(crop.valid, valid) and np.array_equal(crop.mask, mask)
        changed = crop.image[0] == 40
        for band, value in zip(crop.image, fill, strict=True):
            assert np.array_equal(band == int(value), changed) and (band[valid & ~changed] == 9).all()
        rows, columns = np.nonzero(changed)
        if rows.size:
            sides.append((np.ptp(rows) + 1, np.ptp(columns) + 1))
            box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            assert changed[box][valid[box]].all()
    assert 70 < len(sides) < 130  # one half chance
    heights, widths = np.array(sides).T
    assert 17 < heights.max() <= 20 and 25 < widths.max() <= 30


@pytest.fixture
def striped(tmp_path):
    """A 200 x 200 sample whose left 80 % are of one class."""
    label = np.zeros((200, 200), np.uint8)
    label[:, 160:] = 1
    label[:, 190:] = 255
    image_path = write_raster(tmp_path / "image.tif", np.zeros((3, 200, 200), np.uint8))
    sample = Sample("x", image_path, write_raster(tmp_path / "label.png", label), 200, 200)
    return sample, Classes(("a", "b"), ((0, 0, 0), (9, 9, 9)), {0: 0, 1: 1}, (255,))


def dominant(dataset, count=100):
    """Return the largest share of one class among the counted pixels of each crop."""
    shares = []
    for position in range(count):
        mask = dataset[Key(0, position, 0)]["mask"]
        counts = np.bincount(mask[mask != IGNORE], minlength=2)
        shares.append(counts.max() / counts.sum())
    return np.array(shares)


@pytest.mark.parametrize("rotate", [0, 45])
def test_crops_of_nearly_one_class_are_drawn_again(striped, rotate, monkeypatch):
    sample, classes = striped
    images, labels = [], []
    import utils.data.dataset as module
    import utils.data.masks as masks

    read_source, read_label = module.read_source, masks.read_label
    monkeypatch.setattr(module, "read_source", lambda *a, **k: images.append(1) or read_source(*a, **k))
    monkeypatch.setattr(masks, "read_label", lambda *a, **k: labels.append(1) or read_label(*a, **k))
    plain = Augmentation((48, 48), Level(rotate=rotate), "h", BandRanges())
    shares = dominant(SegmentationDataset([sample], classes, plain))
    assert (shares > 0.75).mean() > 0.6 and len(images) == len(labels) == 100
    images.clear(), labels.clear()
    mixed = Augmentation((48, 48), Level(rotate=rotate, cat_max_ratio=0.75), "h", BandRanges())
    shares = dominant(SegmentationDataset([sample], classes, mixed))
    # One place in five or so is good; ten are tried.
    assert (shares > 0.75).mean() < 0.35
    assert len(images) == 100, "the image is read once, whatever the label shows"
    assert len(labels) <= 200, "a small label is read whole at its second window"


def test_a_hopeless_sample_ends_after_ten_places(striped, monkeypatch):
    sample, classes = striped
    write_raster(sample.label, np.zeros((200, 200), np.uint8))
    asked = []
    get = MaskWindows.__getitem__
    monkeypatch.setattr(MaskWindows, "__getitem__", lambda self, w: asked.append(w) or get(self, w))
    level = Level(cat_max_ratio=0.75)
    dataset = SegmentationDataset([sample], classes, Augmentation((48, 48), level))
    assert (dataset[Key(0, 0, 0)]["mask"] == 0).all()
    assert len(asked) == 10 and len(set(asked)) > 5
    asked.clear()
    whole = SegmentationDataset([sample], classes, Augmentation((200, 200), level))
    assert whole[Key(0, 0, 0)]["mask"].shape == (200, 200) and len(asked) == 1  # there is no other place


def test_windows_of_large_labels_are_read_one_by_one(striped, monkeypatch):
    import utils.data.masks as module

    sample, classes = striped
    windows = []
    read = module.read_label
    monkeypatch.setattr(module, "read_label", lambda p, w, **k: windows.append(w) or read(p, w, **k))
    asked = [Window(0, 0, 5, 7), Window(150, 100, 50, 100), Window(3, 3, 1, 1)]
    small = MaskWindows(sample, classes)
    first = [small[window] for window in asked]
    assert windows == [None], "of a PNG all is decoded for any window"
    windows.clear()
    other = write_raster(sample.label.with_suffix(".tif"), read(sample.label)[0])
    strips = MaskWindows(dataclasses.replace(sample, label=other), classes)
    assert all(np.array_equal(strips[window], mask) for window, mask in zip(asked, first, strict=True))
    assert windows == [asked[0], None]
    windows.clear()
    monkeypatch.setattr(module, "SMALL_LABEL", 200 * 200 - 1)
    large = MaskWindows(sample, classes)
    second = [large[window] for window in asked]
    assert windows == asked
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[1].shape == (50, 100) and first[1][0, 60] == 1 and first[1][0, 95] == IGNORE
