"""Kept samples are read once by all processes together, and what is drawn from them is what would be read."""

import copy
import dataclasses

import numpy as np
import pytest

from nets.errors import UserError
from tests.tiny_dataset import write_raster
from utils.data import dataset as dataset_module
from utils.data import kept as module
from utils.data.augment_level import Level, parse_level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.kept import KeptSamples, shared_with_workers
from utils.data.labels import Classes
from utils.data.loaders import TrainingSampler, training_loader
from utils.data.rare_classes import RareClassSampling
from utils.data.samples import Sample
from utils.data.transforms import Augmentation
from utils.data.window import Window

CLASSES = Classes(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (5, 5, 5)), {0: 0, 1: 1, 2: 2}, (255,))
RNG = np.random.default_rng(5)
LEVELS = [Level(), parse_level("light"), parse_level("strong"), Level(cutout=0.9, chance=1)]
LEVELS += [Level(cat_max_ratio=0.4)]
ROOM = 2**22
WITHOUT = pytest.mark.skipif(not shared_with_workers(), reason="this system shares no memory without a name")


def write_samples(folder, dtype=np.uint8, bands=4):
    image = RNG.integers(0, 200, (bands, 70, 90)).astype(dtype)
    image[:, :9] = 7
    label = RNG.integers(0, 4, (1, 70, 90)).astype(np.uint8)
    label[label == 3] = 255
    for index in range(3):
        nodata = {0: 7, 2: 199}.get(index)  # many pixels, few and none
        write_raster(folder / f"image{index}.tif", (image + index).astype(dtype), nodata=nodata)
        write_raster(folder / f"label{index}.tif", label)
    paths = [(folder / f"image{i}.tif", folder / f"label{i}.tif") for i in range(3)]
    counts = tuple((i, int((label == i).sum())) for i in range(3))
    return [Sample(image.stem, image, label, 70, 90, counts) for image, label in paths]


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """The sources that were read whole; nothing may be read by window."""
    found, read = [], module.read_source
    monkeypatch.setattr(module, "read_source", lambda source: found.append(source) or read(source))
    monkeypatch.setattr(dataset_module, "read_source", None)
    return found


def same(one, other):
    for name in ("image", "valid", "mask"):
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("level", LEVELS, ids=["none", "light", "strong", "cutout", "mixed"])
@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 3), ("uint8", 5), ("int16", 2), ("float32", 1)])
def test_kept_samples_change_nothing(tmp_path, level, dtype, bands, request):
    samples = write_samples(tmp_path, dtype, bands)
    keys = [Key(epoch, position, position) for epoch in range(4) for position in range(3)]
    augmentation = Augmentation((70, 90), level, "d4")
    found = [SegmentationDataset(samples, CLASSES, augmentation)[key] for key in keys]
    reads = request.getfixturevalue("reads")
    kept = KeptSamples(samples, CLASSES, bands, dtype, ROOM)
    once = SegmentationDataset(samples, CLASSES, augmentation, kept=kept)
    for key, item in zip(keys, found, strict=True):
        same(once[key], item)
    assert len(reads) == len(set(reads)) == 3


def test_windows_about_rare_classes(samples, request):
    rare = RareClassSampling(samples, CLASSES, 0.1, 0)
    augmentation = Augmentation((40, 50), parse_level("light,cat_max_ratio=0.4"), "h")
    keys = [Key(0, position, 0) for position in range(12)]
    plain = SegmentationDataset(samples, CLASSES, augmentation, 0, rare)
    found = [plain[key] for key in keys]
    request.getfixturevalue("reads")
    kept = KeptSamples(samples, CLASSES, 4, "uint8", ROOM)
    again = SegmentationDataset(samples, CLASSES, augmentation, 0, rare, kept)
    for key, item in zip(keys, found, strict=True):
        same(again[key], item)


def test_what_is_cut_is_a_copy(samples):
    kept = KeptSamples(samples, CLASSES, 4, "uint8", ROOM)
    for sample in samples:
        before = kept.whole(sample).image.copy()
        image, valid = kept.whole(sample).cut(Window(0, 0, 70, 90))
        image[:], valid[:] = 0, False
        np.testing.assert_array_equal(kept.whole(sample).image, before)
        assert kept.whole(sample).cut(Window(60, 0, 9, 9))[1].any()


def test_the_first_that_fit_are_kept(samples):
    of_one = 70 * 90 * (4 + 1 + 1)
    kept = KeptSamples(samples, CLASSES, 4, "uint8", 2 * of_one + 3 * 4096)
    assert list(kept.places) == samples[:2] and kept.wanted == 3
    assert 2 * of_one <= kept.nbytes <= 2 * of_one + 3 * 4096
    assert kept.whole(samples[1]) is not None and kept.whole(samples[2]) is None
    assert not KeptSamples(samples, CLASSES, 4, "uint8", of_one).places
    parts = [dataclasses.replace(samples[0], window=Window(0, 0, 9, 9)), samples[1]]
    parts += [dataclasses.replace(samples[2], cells=(Window(0, 0, 9, 9),))]
    assert list(KeptSamples(parts, CLASSES, 4, "uint8", ROOM).places) == [samples[1]]


def test_what_is_not_as_promised_is_read_by_window(samples, tmp_path):
    write_raster(samples[0].image, RNG.integers(0, 200, (4, 70, 90)).astype(np.int16))
    write_raster(samples[1].label, np.full((1, 70, 90), 77, np.uint8))
    kept = KeptSamples(samples, CLASSES, 4, "uint8", ROOM)
    assert [kept.whole(sample) is None for sample in samples] == [True, True, False]
    dataset = SegmentationDataset(samples, CLASSES, Augmentation((32, 32)), kept=kept)
    assert dataset[Key(0, 0, 0)]["image"].dtype == np.int16
    with pytest.raises(UserError, match="77"):
        dataset[Key(0, 0, 1)]


def test_nothing_is_kept_while_memory_is_short(samples, monkeypatch):
    kept = KeptSamples(samples, CLASSES, 4, "uint8", ROOM)
    monkeypatch.setattr(module, "free_memory", lambda: module.LEAST_FREE - 1)
    assert kept.whole(samples[0]) is None and kept.whole(samples[0]) is None
    monkeypatch.setattr(module, "free_memory", lambda: module.LEAST_FREE)
    assert kept.whole(samples[0]) is not None
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    assert kept.whole(samples[0]) is not None, "what is there stays"


@WITHOUT
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_fill_one_memory(samples, method, workers, reads):
    kept = KeptSamples(samples, CLASSES, 4, "uint8", ROOM)
    dataset = SegmentationDataset(samples, CLASSES, Augmentation((70, 90)), kept=kept)
    sampler = TrainingSampler(3, 1)
    batches = list(training_loader(dataset, sampler, workers, start_method=method))
    assert len(batches) == 3 and not reads
    for key, batch in zip(sampler.batches(0), batches, strict=True):
        np.testing.assert_array_equal(dataset[key[0]]["image"], batch["image"][0])
    assert not reads, "the workers have read them"
    apart = copy.copy(kept._memory)
    assert apart.size == kept.nbytes and not apart.bytes.any()
