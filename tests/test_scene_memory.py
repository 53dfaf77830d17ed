"""predict_large.py in little memory: smaller batches, and an estimate that the height does not change."""

import numpy as np
import pytest
import rasterio
import torch

from tests.scene_helpers import CLASSES, WINDOWS, Bands, blobs, large, names, read, use, write_scene
from utils.data.raster import raster_info
from utils.inference.memory import BackingOff, is_out_of_memory
from utils.inference.results import ResultOptions
from utils.inference.scenes import WindowOptions, memory_estimate


def test_batches_shrink_when_memory_runs_out(tmp_path, monkeypatch, capsys):
    network = use(monkeypatch, Bands())
    source = write_scene(tmp_path / "a.tif", blobs(200, 200))
    inner = network.probabilities

    def probabilities(outputs):
        if len(outputs["logits"]) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return inner(outputs)

    network.probabilities = probabilities
    assert large(source, tmp_path / "out", *WINDOWS, "--BATCH_SIZE", "8") == 0
    assert np.array_equal(read(tmp_path / "out/a.tif")[0], blobs(200, 200).argmax(0))
    network.probabilities = lambda outputs: bytearray(1 << 62)
    assert large(source, tmp_path / "none", *WINDOWS) == 2
    assert "does not fit in memory; give a smaller --WINDOW" in capsys.readouterr().err
    assert names(tmp_path / "none") == []


def test_backing_off():
    told = []

    def predict(images):
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images * 2

    careful = BackingOff(predict, told.append)
    images = torch.arange(13.0)[:, None]
    assert torch.equal(careful(images), images * 2)
    assert careful.limit == 3 and len(told) == 2
    assert torch.equal(careful(images), images * 2) and len(told) == 2
    assert not is_out_of_memory(RuntimeError("shapes differ")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, match="shapes differ"):
        BackingOff(lambda images: (_ for _ in ()).throw(RuntimeError("shapes differ")), told.append)(images)


def test_memory_is_told_by_width_and_window_and_not_by_height(tmp_path):
    options = WindowOptions((512, 512), 0.25, 4)
    results = ResultOptions()
    told = []
    for height in (4000, 32000):
        path = tmp_path / f"{height}.tif"
        profile = {"driver": "GTiff", "count": 3, "height": height, "width": 4000, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile, tiled=True, SPARSE_OK=True):
            pass
        told.append(memory_estimate(raster_info(path), CLASSES, options, results))
    assert told[1] < 1.1 * told[0]
