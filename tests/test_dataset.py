import multiprocessing

import numpy as np
import pytest
import torch

from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.augment_level import parse_level
from utils.data.dataset import Key, SegmentationDataset
from utils.data.labels import IGNORE
from utils.data.layout import Sample, scan_dataset
from utils.data.loaders import (
    TrainingSampler,
    collate,
    default_workers,
    evaluation_loader,
    to_device,
    training_loader,
)
from utils.data.photometric import BandRanges
from utils.data.transforms import Augmentation


@pytest.fixture
def info(tmp_path):
    return scan_dataset(write_dataset(tmp_path, values=(0, 1, 255), tiles=5), progress=False)


def training_set(info, seed=0, level="standard"):
    ranges = BandRanges((2000.0,) * 3, (900.0,) * 3)
    augmentation = Augmentation((12, 8), parse_level(level), "d4", ranges)
    return SegmentationDataset(info.splits["train"], info.classes, augmentation, seed)


def test_whole_image(info):
    item = SegmentationDataset(info.splits["val"], info.classes)[1]
    assert item["image"].shape == (3, 16, 16) and item["image"].dtype == np.uint16
    assert item["name"] == "v1" and item["valid"].all()
    assert set(np.unique(item["mask"])) == {IGNORE, 0, 1} and item["mask"].dtype == np.int16


def test_image_without_label(info):
    sample = info.splits["val"][0]
    item = SegmentationDataset([Sample("x", sample.image, None, 16, 16)], info.classes)[0]
    images, masks = to_device(collate([item]), "cpu")
    assert "mask" not in item and masks is None and images.shape == (1, 3, 16, 16)


def test_invalid_pixels_are_ignored_and_nan(tmp_path):
    root = write_dataset(tmp_path, values=(0, 1))
    image = np.ones((3, 16, 16), np.float32)
    image[1, 2, 3] = np.inf
    write_raster(root / "images" / "v0.tif", image)
    info = scan_dataset(root, progress=False)
    item = SegmentationDataset(info.splits["val"], info.classes)[0]
    assert item["mask"][2, 3] == IGNORE and not item["valid"][2, 3] and item["valid"].sum() == 255
    images, masks = to_device(collate([item]), "cpu")
    assert images[0, :, 2, 3].isnan().all() and images.isnan().sum() == 3
    assert images.dtype == torch.float32 and masks.dtype == torch.int64


def test_label_changed_after_the_check(info):
    label = np.full((16, 16), 9, np.uint8)
    write_raster(info.splits["val"][0].label, label)
    with pytest.raises(UserError, match=r"v0\.png: label value 9 in 256 pixels"):
        SegmentationDataset(info.splits["val"], info.classes)[0]


@pytest.mark.parametrize("level", ["standard", "strong,cutmix=0.5,mosaic=0.5"])
def test_samples_depend_on_seed_epoch_and_position_alone(info, level):
    dataset = training_set(info, 0, level)
    first = dataset[Key(1, 2, 3)]
    dataset[Key(0, 0, 0)]
    again = training_set(info, 0, level)[Key(1, 2, 3)]
    assert all(np.array_equal(first[key], again[key]) for key in first)
    for other in (dataset[Key(2, 2, 3)], dataset[Key(1, 3, 3)], training_set(info, 1, level)[Key(1, 2, 3)]):
        assert not np.array_equal(first["image"], other["image"])
    assert first["image"].shape == (3, 12, 8) and first["mask"].shape == first["valid"].shape == (12, 8)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", ">i2", "uint32", "int32", "uint64", "float16", "float64"]
)
def test_collate_and_to_device_keep_values(dtype):
    image = np.array([[[0, 1, 120]]], dtype=dtype)
    items = [{"image": image, "valid": np.ones((1, 3), bool), "name": str(i)} for i in range(2)]
    images, _ = to_device(collate(items), "cpu")
    assert images.dtype == torch.float32 and images[1].flatten().tolist() == [0, 1, 120]


def test_large_unsigned_numbers_do_not_turn_negative():
    for dtype, top in (("uint16", 65535), ("uint32", 2**32 - 1)):
        item = {"image": np.full((1, 1, 1), top, dtype), "valid": np.ones((1, 1), bool), "name": "x"}
        assert to_device(collate([item]), "cpu")[0].item() == pytest.approx(top)


def test_training_order():
    sampler = TrainingSampler(10, 3, seed=4)
    batches = sampler.batches(0)
    assert len(batches) == len(sampler) == 3 and all(len(batch) == 3 for batch in batches)
    keys = [key for batch in batches for key in batch]
    assert len({key.index for key in keys}) == 9 and [key.position for key in keys] == list(range(9))
    sampler.set_epoch(1)
    assert list(sampler) == sampler.batches(1) != batches
    sampler.set_epoch(1, first_batch=2)
    assert list(sampler) == sampler.batches(1)[2:] and len(sampler) == 1


def test_set_smaller_than_a_batch_fills_it():
    batches = TrainingSampler(3, 8).batches(0)
    assert len(batches) == 1 and len(batches[0]) == 8
    assert {key.index for key in batches[0]} == {0, 1, 2} and len({key.position for key in batches[0]}) == 8


@pytest.mark.parametrize(
    ("workers", "start_method"), [(0, None), (1, "spawn"), (2, multiprocessing.get_start_method())]
)
def test_workers_change_nothing_and_global_randomness_is_untouched(info, workers, start_method):
    sampler = TrainingSampler(5, 2)
    state = torch.get_rng_state()
    dataset = training_set(info, 0, "strong,cutmix=0.5,mosaic=0.5")
    loader = training_loader(dataset, sampler, workers, start_method=start_method)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == 2
        expected = [collate([dataset[key] for key in batch]) for batch in sampler.batches(epoch)]
        for got, want in zip(batches, expected, strict=True):
            assert got["name"] == want["name"]
            assert all(torch.equal(got[key], want[key]) for key in ("image", "valid", "mask"))
    assert torch.equal(state, torch.get_rng_state())


def test_evaluation_batches_hold_one_size_each(tmp_path, info):
    samples = []
    for index, width in enumerate((8, 8, 8, 5, 8)):
        path = write_raster(tmp_path / f"{index}.npy", np.zeros((8, width), np.uint8))
        samples.append(Sample(str(index), path, None, 8, width))
    loader = evaluation_loader(SegmentationDataset(samples, info.classes), 2, 0)
    assert [batch["name"] for batch in loader] == [["0", "1"], ["2"], ["3"], ["4"]] and len(loader) == 4


def test_default_workers():
    assert default_workers("cpu") >= 0 and 1 <= default_workers("cuda") <= 8
