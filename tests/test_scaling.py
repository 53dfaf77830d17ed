"""Scaling of the bands by percentiles, and statistics of sets too large to be read."""

import numpy as np
import pytest
import rasterio

import utils.data.drawn_windows as drawn_windows
import utils.data.statistics as module
from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.drawn_windows import draw_windows
from utils.data.layout import scan_dataset
from utils.data.raster import Window
from utils.data.samples import Sample
from utils.data.scaling import Scaling, parse_scaling
from utils.data.statistics import BandStatistics, cached_statistics, measure_bands
from utils.options import train_options
from utils.training.announce import bands_table

PERCENTILES = Scaling((2.0, 98.0))


def measure(samples, scaling=PERCENTILES, workers=2, **more):
    return measure_bands(samples, scaling, workers=workers, progress=False, **more)


def sample_of(path, array, **profile):
    return Sample(path.stem, write_raster(path, array, **profile), None, *array.shape[1:])


@pytest.mark.parametrize(
    ("text", "percentiles"),
    [("standard", None), ("percentile", (2, 98)), ("Percentile:0.5,99", (0.5, 99))],
)
def test_forms_of_the_flag(text, percentiles):
    assert parse_scaling(text).percentiles == percentiles
    assert text == train_options(["--SCALING", text]).SCALING


@pytest.mark.parametrize(
    "text", ["", "minmax", "percentile:98,2", "percentile:0,100", "percentile:2", "standard:1"]
)
def test_other_forms_are_refused(text):
    with pytest.raises(UserError, match=r"exist|LOW,HIGH with 0 < LOW < HIGH < 100"):
        train_options([f"--SCALING={text}"])


def test_a_bell_shaped_band_is_scaled_as_by_its_mean_and_deviation(tmp_path):
    values = np.random.default_rng(0).normal(300, 20, (2, 200, 200)).astype(np.float32)
    values[1, :2] = 1e6  # one per cent of the pixels are wrong
    sample = sample_of(tmp_path / "a.tif", values)
    got, plain = measure([sample]), measure([sample], Scaling())
    np.testing.assert_allclose(got.center, [300, 300], atol=4)
    np.testing.assert_allclose(got.scale, [20, 20], rtol=0.15)
    assert plain.scale[1] > 1e4 and plain.center == plain.mean
    # The middle of an uneven choice is the mean all the same.
    np.testing.assert_allclose(measure([sample], Scaling((10.0, 60.0))).center[0], 300, atol=1.5)


def test_percentiles_are_those_of_the_valid_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRIP_PIXELS", 100)
    values = np.random.default_rng(1).integers(1, 3000, (3, 40, 31)).astype(np.uint16)
    values[:, :9] = 0
    samples = [sample_of(tmp_path / f"{n}.tif", values + np.uint16(n), nodata=n) for n in (0, 1)]
    got = measure(samples)
    pixels = np.concatenate([values[:, 9:].reshape(3, -1), values[:, 9:].reshape(3, -1) + 1], axis=1)
    low, high = np.percentile(pixels, (2, 98), axis=1)
    np.testing.assert_allclose(got.low, low)
    np.testing.assert_allclose(got.high, high)
    assert got == measure(samples, workers=5) and got.share == ""


def test_a_band_without_spread_between_the_percentiles_keeps_its_deviation(tmp_path):
    values = np.zeros((2, 20, 20), np.float32)
    values[0, 0, 0] = 7  # a quarter of a per cent
    got = measure([sample_of(tmp_path / "a.tif", values)])
    assert got.low == got.high == (0.0, 0.0)
    assert got.scale == (got.std[0], 1.0) and got.std[0] > 0


def test_values_that_are_kept_for_percentiles_are_limited(tmp_path, monkeypatch):
    values = np.random.default_rng(2).normal(0, 1, (1, 300, 300))
    sample = sample_of(tmp_path / "a.tif", values)
    exact = measure([sample])
    monkeypatch.setattr(module, "MOST_KEPT", 9000)
    kept = []
    statistics = module._statistics
    monkeypatch.setattr(module, "_statistics", lambda t, k, *more: kept.append(k) or statistics(t, k, *more))
    got = measure([sample], seed=3)
    assert 8000 < sum(part.shape[1] for part in kept[0]) < 10000
    np.testing.assert_allclose(got.scale, exact.scale, rtol=0.1)
    assert got.mean == exact.mean and got == measure([sample], seed=3) != measure([sample], seed=4)


@pytest.fixture
def read(monkeypatch):
    """Return the list of (sample name, pixels) that statistics read."""
    seen = []

    def spy(source, window=None):
        image, valid = original(source, window)
        seen.append((source[0].path.stem, valid.size))
        return image, valid

    original = module.read_source
    monkeypatch.setattr(module, "read_source", spy)
    return seen


def limit(monkeypatch, values):
    for name in ("MOST_VALUES", "DRAWN_VALUES"):
        monkeypatch.setattr(module, name, values)


def test_of_many_images_no_more_is_read_than_the_budget(tmp_path, monkeypatch, read):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(n, 1, (2, 16, 16)).astype(np.float32) for n in range(60)]
    samples = [sample_of(tmp_path / f"{n}.tif", array) for n, array in enumerate(arrays)]
    limit(monkeypatch, 2 * 256 * 20 + 7)
    got = measure(samples, seed=1)
    pixels = sum(size for _, size in read)
    assert pixels == 20 * 256 == got.read_pixels and got.pixels == 60 * 256
    assert len({name for name, _ in read}) == 20  # as many images as the budget allows, none twice
    assert got.share == "measured on 33 % of the pixels, drawn at random"
    assert abs(got.mean[0] - 29.5) < 10 and abs(got.std[0] - 17.3) < 6
    assert got == measure(samples, seed=1, workers=5) and got != measure(samples, seed=2)
    # The share stands in what a run prints.
    data = type("Data", (), {"band_names": ("a", "b")})
    assert got.share in bands_table(data, got)


@pytest.mark.parametrize(
    "profile",
    [
        {"tiled": True, "blockxsize": 32, "blockysize": 16},
        {"blockysize": 4},
        {"suffix": ".png"},
        {"suffix": ".npy"},
    ],
)
def test_of_a_large_image_blocks_are_read_all_over_it(tmp_path, monkeypatch, read, profile):
    profile = dict(profile)
    name = f"scene{profile.pop('suffix', '.tif')}"
    rows = np.broadcast_to(np.arange(320, dtype=np.uint16)[:, None], (320, 256))
    array = np.stack([rows, rows[::-1], 2 * rows]).copy()
    sample = sample_of(tmp_path / name, array, **profile)
    for key, value in {"_SMALL": 1000, "_WINDOW": 512, "_SEQUENTIAL_WINDOW": 1024}.items():
        monkeypatch.setattr(drawn_windows, key, value)
    monkeypatch.setattr(drawn_windows, "_window_size", small_npy(drawn_windows._window_size))
    limit(monkeypatch, 3 * 320 * 256 // 4)
    got = measure([sample], Scaling())
    pixels = sum(size for _, size in read)
    assert 0.9 * 320 * 256 / 4 - 1024 < pixels <= 320 * 256 / 4 and pixels == got.read_pixels
    np.testing.assert_allclose(got.mean, [159.5, 159.5, 319], rtol=0.15)
    if name.endswith(".tif"):
        with rasterio.open(sample.image) as file:
            block = file.block_shapes[0]
        for part in draw_windows([sample], 320 * 256 // 4, 0, 1):
            assert part.window.top % block[0] == 0 and part.window.left % block[1] == 0


def small_npy(function):
    return lambda path: (16, 32) if path.suffix == ".npy" else function(path)


def test_parts_of_a_scene_stay_within_it(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_windows, "_SMALL", 100)
    monkeypatch.setattr(drawn_windows, "_WINDOW", 256)
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 99, 99), np.uint8), blockysize=3)
    part = Sample("a", path, None, 40, 30, window=Window(11, 20, 40, 30), avoid=(Window(0, 0, 50, 25),))
    drawn = draw_windows([part], 600, 0, 1)
    assert sum(each.height * each.width for each in drawn) <= 600 and len(drawn) > 3
    for each in drawn:
        top, left, height, width = each.window
        assert top >= 11 and left >= 20 and top + height <= 51 and left + width <= 50
        assert each.avoid == part.avoid
    assert len({each.window for each in drawn}) == len(drawn)


def test_a_slow_disk_ends_the_reading(tmp_path, monkeypatch, read):
    samples = [sample_of(tmp_path / f"{n}.tif", np.full((1, 16, 16), n, np.uint8)) for n in range(50)]
    limit(monkeypatch, 256 * 40)
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    got = measure(samples, Scaling(), workers=1)
    assert got.read_pixels == 256 and "measured on 2 % of the pixels" in got.share
    # A small set is read to its end, whatever it takes.
    assert measure(samples[:3], Scaling()).read_pixels == 3 * 256


def test_what_is_kept_says_by_which_scaling_it_was_measured(tmp_path):
    samples = scan_dataset(write_dataset(tmp_path / "data"), progress=False).splits["train"]
    kept = {
        text: cached_statistics(
            tmp_path / "s.json", samples, lambda text=text: measure(samples, parse_scaling(text)), text
        )
        for text in ("standard", "percentile")
    }
    assert kept["standard"].low == () and len(kept["percentile"].low) == 3
    again = cached_statistics(
        tmp_path / "s.json", samples, lambda: pytest.fail("measured anew"), "percentile"
    )
    assert again == kept["percentile"] == BandStatistics.from_dict(again.to_dict())
