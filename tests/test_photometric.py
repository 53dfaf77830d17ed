"""Changes of pixel values: their size, their limits, and what they must not touch."""

import numpy as np
import pytest

from tests.helpers import augmented
from utils.data.augment_level import Level
from utils.data.bands import rgb_order
from utils.data.labels import IGNORE
from utils.data.photometric import BandRanges, blur, vary
from utils.data.transforms import Augmentation

PIECES = {
    "brightness": Level(brightness=0.1, chance=1),
    "contrast": Level(contrast=0.1, chance=1),
    "gamma": Level(gamma=0.5, chance=1),
    "color": Level(color=1),
    "blur": Level(blur=2, chance=1),
    "noise": Level(noise=0.3, chance=1),
    "band_dropout": Level(band_dropout=0.5),
}


def ranges(bands, mean=100.0, std=20.0):
    return BandRanges((mean,) * bands, (std,) * bands, (0, 1, 2) if bands == 3 else None)


@pytest.mark.parametrize("bands", [1, 3, 10])
@pytest.mark.parametrize("piece", sorted(PIECES))
def test_each_piece_changes_valid_pixels_and_nothing_else(piece, bands):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 140, (bands, 24, 30)).astype(np.uint8)
    mask = rng.integers(0, 5, (24, 30)).astype(np.int16)
    valid = rng.random((24, 30)) > 0.2
    hidden = image.copy()
    hidden[:, ~valid] = 255
    augmentation = Augmentation((24, 30), PIECES[piece], "none", ranges(bands))
    changed = 0
    for seed in range(10):
        out, good, classes = augmented(augmentation, image, valid, mask, seed)
        assert out.dtype == np.uint8 and out.shape == image.shape
        assert np.array_equal(good, valid) and (out[:, ~valid] == 0).all()
        assert np.array_equal(classes, np.where(valid, mask, IGNORE))
        # What stands under invalid pixels reaches no valid one.
        assert np.array_equal(augmented(augmentation, hidden, valid, mask, seed).image, out)
        changed += not np.array_equal(out[:, valid], image[:, valid])
    possible = bands == 3 if piece == "color" else bands > 1 or piece != "band_dropout"
    assert (changed > 4) == possible


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("piece", sorted(PIECES))
def test_dtype_and_range_are_kept(piece, dtype):
    high = float(np.iinfo(dtype).max) if np.dtype(dtype).kind != "f" else 6e4 if dtype == "float16" else 1e19
    image = (np.random.default_rng(0).random((3, 16, 16)) * high * 0.999).astype(dtype)
    augmentation = Augmentation((16, 16), PIECES[piece], "none", ranges(3, high / 2, high))
    valid = np.ones((16, 16), bool)
    saturated = 0
    for seed in range(6):
        out, _, _ = augmented(augmentation, image, valid, valid.astype(np.int16), seed)
        assert out.dtype == dtype and np.isfinite(out.astype(np.float64)).all()
        saturated += any((band == band.max()).sum() > 5 for band in out)
    if np.dtype(dtype).kind != "f" and piece in ("brightness", "color", "noise"):
        assert saturated, "a brighter band saturates, it does not wrap to dark"


def test_brightness_and_contrast_have_the_documented_size():
    image = np.random.default_rng(0).normal(50, 4, (200, 8, 8)).astype(np.float32)
    valid = np.ones((8, 8), bool)
    mask = valid.astype(np.int16)
    known = BandRanges(std=(5.0,) * 200)
    both = Augmentation((8, 8), Level(brightness=0.1, contrast=0.1, chance=1), "none", known)
    out, _, _ = augmented(both, image, valid, mask, 0)
    shift = (out.mean((1, 2)) - image.mean((1, 2))) / 5
    gain = out.std((1, 2)) / image.std((1, 2))
    assert 0.08 < abs(shift).max() <= 0.1001 and 0.08 < abs(gain - 1).max() <= 0.1001
    assert np.unique(shift.round(5)).size > 150  # each band by its own draw
    half = Augmentation((8, 8), Level(brightness=0.1, contrast=0.1), "none", known)
    varied = [not np.array_equal(augmented(half, image, valid, mask, seed)[0], image) for seed in range(100)]
    assert 35 < sum(varied) < 65


def test_gamma_bends_the_usual_values_and_keeps_their_order_and_the_outliers():
    image = np.linspace(0, 255, 2000, dtype=np.float32).reshape(1, 20, 100).repeat(50, axis=0)
    before = image.copy()
    vary(image, np.ones((20, 100), bool), PIECES["gamma"], ranges(50), np.random.default_rng(1))
    outside = (before < 60) | (before > 140)  # two deviations of 20 about 100
    assert np.array_equal(image[outside], before[outside])
    assert (np.diff(image.reshape(50, -1), axis=1) >= 0).all()
    middle = image.reshape(50, -1)[:, 784]  # where 100 was: 60 + 80 * 0.5 ** exponent
    exponents = np.log((middle - 60) / 80) / np.log((before[0].ravel()[784] - 60) / 80)
    assert 1 / 1.501 < exponents.min() < 0.75 and 1.35 < exponents.max() < 1.501


def test_color_keeps_grey_grey_and_turns_the_hue():
    grey = np.full((3, 4, 4), 90.0, np.float32)
    vivid = grey.copy()
    vivid[0] += 60
    level = Level(color=1)
    greys, hues = [], []
    for seed in range(60):
        one, other = grey.copy(), vivid.copy()
        for image in (one, other):
            vary(image, np.ones((4, 4), bool), level, ranges(3), np.random.default_rng(seed))
        np.testing.assert_allclose(one[0], one[1], rtol=1e-5)
        np.testing.assert_allclose(one[0], one[2], rtol=1e-5)
        greys.append(one[0, 0, 0])
        red, green, blue = other[:, 0, 0].astype(np.float64)
        hues.append(np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)))
    white = 140 * 32 / 255  # the largest brightness: white is two deviations above the mean
    assert 90 * 0.5 - white < min(greys) < 70 and 110 < max(greys) < 90 * 1.5 + white
    assert -18.01 < min(hues) < -10 and 10 < max(hues) < 18.01


def test_color_follows_the_bands_names():
    assert rgb_order(3, ("red", "green", "blue")) == (0, 1, 2)
    assert rgb_order(3, ("B02 - blue", "B03", "B04")) == (2, 1, 0)
    assert rgb_order(3, ("nir", "red", "green")) is None
    assert rgb_order(3, ("band_1", "band_2", "band_3")) is None
    assert rgb_order(4, ("red", "green", "blue", "nir")) is None
    image = np.random.default_rng(0).random((3, 5, 5)).astype(np.float32) * 100
    turned = image[::-1].copy()
    for part, order in ((image, (0, 1, 2)), (turned, (2, 1, 0))):
        known = BandRanges((100.0,) * 3, (20.0,) * 3, order)
        vary(part, np.ones((5, 5), bool), Level(color=1), known, np.random.default_rng(3))
    np.testing.assert_allclose(turned[::-1], image, rtol=1e-5)


def test_blur_is_a_gaussian_mean_of_the_valid_pixels():
    rng = np.random.default_rng(0)
    image = rng.random((2, 15, 19)).astype(np.float64)
    for valid in (np.ones((15, 19), bool), rng.random((15, 19)) > 0.3):
        image[:, ~valid] = np.nan
        out = blur(image, valid, 1.2)
        rows, columns = np.mgrid[:15, :19]
        for row, column in ((0, 0), (7, 9), (14, 3)):
            if not valid[row, column]:
                continue
            weights = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 1.2**2)) * valid
            weights[(abs(rows - row) > 4) | (abs(columns - column) > 4)] = 0  # cut at three deviations
            expected = np.nansum(image * weights, axis=(1, 2)) / weights.sum()
            np.testing.assert_allclose(out[:, row, column], expected, rtol=1e-9)
        assert np.isnan(out[:, ~valid]).all() and np.isfinite(out[:, valid]).all()
    assert blur(image, valid, 0.0) is image
    assert blur(image[:, :1, :1], np.ones((1, 1), bool), 3.0).shape == (2, 1, 1)


def test_noise_has_the_bands_own_size():
    image = np.zeros((2, 200, 200), np.float32)
    known = BandRanges((0.0, 0.0), (1.0, 100.0))
    sizes = []
    for seed in range(30):
        out = image.copy()
        vary(out, np.ones((200, 200), bool), PIECES["noise"], known, np.random.default_rng(seed))
        sizes.append(out.std(axis=(1, 2)))
    sizes = np.array(sizes)
    np.testing.assert_allclose(sizes[:, 1], 100 * sizes[:, 0], rtol=0.05)
    assert sizes[:, 0].min() < 0.06 and 0.24 < sizes[:, 0].max() < 0.31


def test_bands_are_dropped_to_their_means_and_one_is_kept():
    known = BandRanges((7.0, 8.0, 9.0), (1.0,) * 3)
    dropped = np.zeros(3)
    for seed in range(400):
        image = np.zeros((3, 2, 2), np.float32)
        vary(image, np.ones((2, 2), bool), Level(band_dropout=0.5), known, np.random.default_rng(seed))
        gone = image[:, 0, 0] != 0
        assert (image[gone] == np.array(known.mean)[gone, None, None]).all() and not gone.all()
        dropped += gone
    # One half each, but for the eighth of the draws in which one of three is kept.
    np.testing.assert_allclose(dropped / 400, 0.5 - 1 / 24, atol=0.08)


def test_an_image_without_valid_pixels_passes():
    strong = Level(**dict.fromkeys(PIECES, 0.5), cutout=0.5)
    augmentation = Augmentation((8, 8), strong, ranges=ranges(3))
    nothing = np.zeros((8, 8), bool)
    out, good, mask = augmented(augmentation, np.ones((3, 8, 8), np.uint8), nothing, np.zeros((8, 8)), 0)
    assert not out.any() and not good.any() and (mask == IGNORE).all()
