"""Small samples are read once, and what is drawn from them is what would be read."""

import copy

import numpy as np
import pytest

from tests.tiny_dataset import write_raster
from utils.data import dataset as dataset_module
from utils.data import kept
from utils.data.augment_level import Level, parse_level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.labels import Classes
from utils.data.samples import Sample
from utils.data.transforms import Augmentation

CLASSES = Classes(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (5, 5, 5)), {0: 0, 1: 1, 2: 2}, (255,))
RNG = np.random.default_rng(5)
LEVELS = [Level(), parse_level("light"), parse_level("strong"), Level(cutout=0.9, chance=1)]


@pytest.fixture
def samples(tmp_path):
    image = RNG.integers(0, 200, (4, 70, 90)).astype(np.uint8)
    image[:, :9] = 7
    label = RNG.integers(0, 3, (1, 70, 90)).astype(np.uint8)
    for index in range(3):
        write_raster(tmp_path / f"image{index}.tif", image + index, nodata=7 if index == 0 else None)
        write_raster(tmp_path / f"label{index}.tif", label)
    return [Sample(str(i), tmp_path / f"image{i}.tif", tmp_path / f"label{i}.tif", 70, 90) for i in range(3)]


@pytest.mark.parametrize("level", LEVELS, ids=["none", "light", "strong", "cutout"])
def test_kept_samples_change_nothing(samples, level, monkeypatch):
    keys = [Key(epoch, position, position) for epoch in range(4) for position in range(3)]
    augmentation = Augmentation((70, 90), level, "d4")
    found = [SegmentationDataset(samples, CLASSES, augmentation)[key] for key in keys]
    once = SegmentationDataset(samples, CLASSES, augmentation)
    reads = []
    monkeypatch.setattr(
        kept, "read_source", lambda source, read=kept.read_source: reads.append(source) or read(source)
    )
    monkeypatch.setattr(dataset_module, "read_source", None)
    for key, item in zip(keys, found, strict=True):
        again = once[key]
        for name in ("image", "valid", "mask"):
            np.testing.assert_array_equal(again[name], item[name])
    assert len(reads) == 3


def test_what_is_not_kept(samples, monkeypatch):
    store = kept.KeptSamples(CLASSES)
    assert store.whole(samples[0]) is store.whole(samples[0])
    assert not copy.copy(store)._kept
    monkeypatch.setattr(kept, "_MOST_PIXELS", 70 * 90 - 1)
    assert store.whole(samples[1]) is None
    monkeypatch.undo()
    monkeypatch.setattr(kept, "_MOST_BYTES", 1)
    store = kept.KeptSamples(CLASSES)
    assert store.whole(samples[0]) is not None and store.whole(samples[1]) is None
