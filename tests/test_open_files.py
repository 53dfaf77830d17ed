"""Scenes are read by window from files that stay open, in every process its own."""

import multiprocessing
import os

import numpy as np
import pytest
import rasterio

from nets.errors import UserError
from tests.tiny_dataset import write_raster
from utils.data import open_files
from utils.data.dataset import SegmentationDataset
from utils.data.labels import Classes
from utils.data.loaders import TrainingSampler, training_loader
from utils.data.open_files import kept_open
from utils.data.raster import Window, read_image
from utils.data.samples import Sample
from utils.data.transforms import Augmentation

SIDE = 2304  # more than a tile has, in blocks of 256
CLASSES = Classes(("a", "b"), ((0, 0, 0), (9, 9, 9)), {0: 0, 1: 1}, ())
STARTS = [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene and its label as tiled GeoTIFFs."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = np.stack([rows // 16, columns // 16]).astype(np.uint8)
    folder = tmp_path_factory.mktemp("scene")
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    write(folder / "image.tif", image, **tiled)
    write(folder / "label.tif", (image[:1] // 9) % 2, **tiled)
    return folder / "image.tif", folder / "label.tif"


def write(path, array, **profile):
    shape = {"count": len(array), "height": array.shape[1], "width": array.shape[2]}
    with rasterio.open(path, "w", "GTiff", dtype=array.dtype, **shape, **profile) as file:
        file.write(array)


def test_a_scene_stays_open_until_it_changes(scene, tmp_path):
    with kept_open(scene[0]) as first:
        pass
    with kept_open(scene[0]) as second:
        assert second is first and not first[0].closed
    os.utime(scene[0], (1, 1))
    with kept_open(scene[0]) as third:
        assert third is not first
    with kept_open(write_raster(tmp_path / "tile.tif", np.ones((1, 8, 8), np.uint8))) as small:
        pass
    assert small[0].closed


def test_only_so_many_stay_open(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(open_files, "_MOST_FILES", 1)
    with kept_open(scene[0]) as first:
        pass
    with kept_open(scene[1]) as second:
        pass
    assert first[0].closed and not second[0].closed


def test_a_window_reads_no_other_block(scene, tmp_path):
    data = bytearray(scene[0].read_bytes())
    data[-4000:] = bytes(4000)  # the blocks of the lower right
    path = tmp_path / "damaged.tif"
    path.write_bytes(data)
    image, _ = read_image(path, Window(100, 200, 512, 512))
    assert image[0, 0, 0] == 100 // 16 and image[1, -1, -1] == 711 // 16
    with pytest.raises(UserError, match="may be damaged"):
        read_image(path, Window(SIDE - 512, SIDE - 512, 512, 512))


def child(path, parents, queue):
    with kept_open(path) as pages:
        same = id(pages) == parents
    image, _ = read_image(path, Window(512, 512, 300, 300))
    queue.put((same, image.sum(dtype=np.int64).item()))


@pytest.mark.skipif("fork" not in STARTS, reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_opens_its_own(scene):
    expected = read_image(scene[0], Window(512, 512, 300, 300))[0].sum(dtype=np.int64).item()
    with kept_open(scene[0]) as pages:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(scene[0], id(pages), queue))
        process.start()
        assert queue.get(timeout=60) == (False, expected)
        process.join()
    assert read_image(scene[0], Window(512, 512, 300, 300))[0].sum(dtype=np.int64).item() == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_of_both_kinds_read_the_same_windows(scene):
    sample = Sample("scene", *scene, SIDE, SIDE)
    dataset = SegmentationDataset([sample] * 4, CLASSES, Augmentation((64, 64)))
    found = []
    for start in (None, *STARTS):
        sampler = TrainingSampler(4, 2)
        loader = training_loader(dataset, sampler, 0 if start is None else 1, start_method=start)
        assert loader.persistent_workers == (start is not None)
        found.append([batch["image"].numpy() for _ in range(2) for batch in loader])
    for images in found[1:]:
        np.testing.assert_array_equal(images, found[0])
