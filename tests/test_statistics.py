import json
import os

import numpy as np

import utils.data.statistics as module
from tests.helpers import shared_data
from tests.tiny_dataset import write_raster
from utils.data.layout import Sample, scan_dataset
from utils.data.statistics import BandStatistics, cached_statistics, measure_bands


def samples_of(tmp_path, arrays, **profile):
    samples = []
    for index, array in enumerate(arrays):
        path = write_raster(tmp_path / f"{index}.tif", array, **profile)
        samples.append(Sample(str(index), path, None, *array.shape[1:]))
    return samples


def measure(samples, workers=2):
    return measure_bands(samples, workers=workers, progress=False)


def test_equals_numpy_over_all_valid_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRIP_PIXELS", 40)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(1e4, 3, (2, size, 9)).astype(np.float32) for size in (8, 13, 21)]
    arrays[1][0, 2, 3] = np.nan
    got = measure(samples_of(tmp_path, arrays))
    pixels = np.concatenate([a[:, np.isfinite(a).all(0)] for a in arrays], axis=1).astype(np.float64)
    np.testing.assert_allclose(got.mean, pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(got.std, pixels.std(1), rtol=1e-9)
    assert got.minimum == tuple(pixels.min(1)) and got.maximum == tuple(pixels.max(1))
    assert got.valid_pixels == pixels.shape[1] == 42 * 9 - 1


def test_threads_change_no_bit(tmp_path):
    arrays = [np.random.default_rng(i).normal(size=(3, 9, 9)) for i in range(12)]
    samples = samples_of(tmp_path, arrays)
    assert measure(samples, 1) == measure(samples, 7)


def test_constant_band_and_no_valid_pixel(tmp_path):
    array = np.full((2, 7, 7), 0.1)  # the mean of 49 times 0.1 is not exactly 0.1
    array[1, 0, 0] = 5
    got = measure(samples_of(tmp_path, [array, array]))
    assert got.std[0] == 0 and got.scale[0] == 1 and got.scale[1] == got.std[1] > 0
    got = measure(samples_of(tmp_path, [np.full((2, 7, 7), 3, np.uint8)], nodata=3))
    assert got.valid_pixels == 0 and got.mean == (0, 0) and got.scale == (1, 1)


def test_agrees_with_the_numbers_of_a_shared_set():
    root = shared_data("water8")
    expected = json.loads((root / "classes.json").read_text())
    got = measure(scan_dataset(root, splits=("train",), progress=False).splits["train"])
    np.testing.assert_allclose(got.mean, expected["train_mean"], rtol=1e-5)
    np.testing.assert_allclose(got.std, expected["train_std"], rtol=1e-5)
    assert list(got.minimum) == expected["train_min"]


def test_cache(tmp_path):
    samples = samples_of(tmp_path, [np.arange(18, dtype=np.uint8).reshape(2, 3, 3)])
    calls = []

    def counted():
        calls.append(1)
        return measure(samples)

    cache = tmp_path / "run" / "statistics.json"
    first = cached_statistics(cache, samples, counted)
    assert cached_statistics(cache, samples, counted) == first and len(calls) == 1
    os.utime(samples[0].image, ns=(1, 1))
    cached_statistics(cache, samples, counted)
    assert len(calls) == 2
    cache.write_text('{"key"')
    assert cached_statistics(cache, samples, counted) == first and len(calls) == 3
    assert BandStatistics.from_dict(json.loads(json.dumps(first.to_dict()))) == first
