import numpy as np
import pytest

from nets.errors import UserError
from utils.data.labels import IGNORE
from utils.data.transforms import LEVELS, Augmentation, resize_image, resize_mask
from utils.flags import DATA


def augment(augmentation, image, valid, mask, seed):
    rng = np.random.default_rng(seed)
    plan = augmentation.plan(rng, *mask.shape)
    rows = slice(plan.window.top, plan.window.top + plan.window.height)
    columns = slice(plan.window.left, plan.window.left + plan.window.width)
    return augmentation.apply(plan, image[:, rows, columns], valid[rows, columns], mask[rows, columns], rng)


def blocks(height, width, side=12):
    """Unequal blocks: no symmetry maps the picture to itself."""
    rows, columns = np.arange(height) // side, np.arange(width) // side
    return ((7 * rows[:, None] + 3 * columns[None] + rows[:, None] * columns[None]) % 11).astype(np.int16)


@pytest.mark.parametrize("flip", ["none", "h", "hv", "d4"])
@pytest.mark.parametrize("size", [(64, 96), (30, 120), (20, 24)])
def test_image_and_mask_stay_aligned(flip, size):
    mask = blocks(*size)
    image = np.stack([mask * 10.0, np.broadcast_to(np.arange(size[1]), size)]).astype(np.float32)
    valid = np.ones(size, dtype=bool)
    augmentation = Augmentation((32, 48), flip=flip, probability=0)
    seen, compared = set(), 0
    for seed in range(40):
        out, good, classes = augment(augmentation, image, valid, mask, seed)
        assert out.shape == (2, 32, 48) and good.shape == classes.shape == (32, 48)
        assert (classes[~good] == IGNORE).all() and (classes[good] != IGNORE).all()
        # Inside a block both kinds of resizing give the block's value; only its rim is mixed.
        inside = good.copy()
        for axis in (0, 1):
            for step in (-2, -1, 1, 2):
                inside &= np.roll(classes, step, axis) == classes
        compared += inside.sum()
        np.testing.assert_allclose(out[0][inside], classes[inside] * 10, atol=1e-3)
        # The second band rises from left to right in the source: it shows what was turned.
        slopes = [np.nanmean(np.diff(np.where(good, out[1], np.nan), axis=axis)) for axis in (0, 1)]
        steepest = int(np.argmax(np.abs(slopes)))
        seen.add((steepest, slopes[steepest] > 0))
    assert compared > 2000
    assert len(seen) == {"none": 1, "h": 2, "hv": 2, "d4": 4}[flip]


def test_d4_draws_all_eight_and_hv_all_four():
    image = np.array([[[0, 1], [2, 3]]], dtype=np.uint8)
    for flip, count in (("none", 1), ("h", 2), ("hv", 4), ("d4", 8)):
        augmentation = Augmentation((2, 2), scale=(1, 1), flip=flip, probability=0)
        args = (image, np.ones((2, 2), bool), image[0].astype(np.int16))
        seen = {augment(augmentation, *args, seed)[0].tobytes() for seed in range(200)}
        assert len(seen) == count
        assert all(np.array_equal(a[0][0], a[2]) for a in (augment(augmentation, *args, s) for s in range(9)))


def test_scale_reads_only_the_window_and_pads_the_rest():
    augmentation = Augmentation((40, 60), scale=(2, 2), flip="none")
    plan = augmentation.plan(np.random.default_rng(0), 500, 500)
    assert plan.window[2:] == (20, 30) and plan.size == (40, 60)
    augmentation = Augmentation((40, 60), scale=(0.5, 0.5), flip="none", probability=0)
    mask = np.zeros((40, 200), np.int16)
    out, valid, mask = augment(augmentation, np.ones((1, 40, 200), np.uint8), mask == 0, mask, 0)
    assert (
        valid[:20].all() and not valid[20:].any() and (mask[20:] == IGNORE).all() and (out[0, :20] == 1).all()
    )


def test_windows_reach_every_corner():
    augmentation = Augmentation((4, 4), scale=(1, 1), flip="none")
    tops = {augmentation.plan(np.random.default_rng(seed), 7, 4).window.top for seed in range(60)}
    assert tops == {0, 1, 2, 3}


def test_invalid_pixels_spread_and_never_leak():
    image = np.full((2, 32, 32), 100.0, np.float32)
    valid = np.ones((32, 32), bool)
    valid[10:14, 10:14] = False
    image[:, ~valid] = -9999
    mask = np.zeros((32, 32), np.int16)
    for seed in range(20):
        out, good, classes = augment(Augmentation((32, 32), probability=0), image, valid, mask, seed)
        np.testing.assert_allclose(out[:, good], 100, rtol=1e-6)
        assert (classes[~good] == IGNORE).all() and (out[:, ~good] == 0).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_photometric_keeps_dtype_and_range(dtype):
    high = float(np.iinfo(dtype).max) if np.dtype(dtype).kind != "f" else 1e19
    rng = np.random.default_rng(0)
    image = (rng.random((10, 16, 16)) * high * 0.999).astype(dtype)
    augmentation = Augmentation((16, 16), (1, 1), flip="none", band_std=(high,) * 10, probability=1)
    valid = np.ones((16, 16), bool)
    out, _, _ = augment(augmentation, image, valid, valid.astype(np.int16), 3)
    assert out.dtype == dtype and np.isfinite(out.astype(np.float64)).all()
    if np.dtype(dtype).kind != "f":  # a brighter band saturates, it does not wrap to dark
        assert any((band == band.max()).sum() > 5 for band in out)


def test_brightness_and_contrast_have_the_documented_size():
    image = np.random.default_rng(0).normal(50, 4, (200, 8, 8)).astype(np.float32)
    valid = np.ones((8, 8), bool)
    mask = valid.astype(np.int16)
    plain = {"scale": (1, 1), "flip": "none", "band_std": (5.0,) * 200}
    out, _, _ = augment(Augmentation((8, 8), probability=1, **plain), image, valid, mask, 0)
    shift = (out.mean((1, 2)) - image.mean((1, 2))) / 5
    gain = out.std((1, 2)) / image.std((1, 2))
    assert 0.08 < abs(shift).max() <= 0.1001 and 0.08 < abs(gain - 1).max() <= 0.1001
    assert np.unique(shift.round(5)).size > 150  # each band by its own draw
    varied = [
        not np.array_equal(augment(Augmentation((8, 8), **plain), image, valid, mask, seed)[0], image)
        for seed in range(100)
    ]
    assert 35 < sum(varied) < 65


def test_the_generator_decides_everything():
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype(np.uint8)
    args = (image, np.ones((40, 50), bool), blocks(40, 50))
    augmentation = Augmentation((24, 20), flip="d4", band_std=(50.0,) * 3)
    for seed in range(5):
        one, two = augment(augmentation, *args, seed), augment(augmentation, *args, seed)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(augment(augmentation, *args, 0)[0], augment(augmentation, *args, 1)[0])


def test_resizing_uses_pixel_centres():
    ramp = np.arange(10, dtype=np.float32)[None, None].repeat(4, 1)
    up = resize_image(ramp, (8, 20))[0, 0]
    np.testing.assert_allclose(up[1:-1], (np.arange(1, 19) + 0.5) / 2 - 0.5, atol=1e-5)
    for new in range(1, 40):
        centres = (np.arange(new) + 0.5) * 10 / new
        assert resize_mask(np.arange(10)[None], (1, new))[0].tolist() == np.floor(centres + 1e-9).tolist()


def test_mistakes():
    with pytest.raises(UserError, match="none, h, hv, d4"):
        Augmentation((8, 8), flip="v")
    with pytest.raises(UserError, match="above 0"):
        Augmentation((8, 8), scale=(2, 1))


@pytest.mark.parametrize("level", ["none", "light", "standard"])
def test_levels_change_what_they_name(level):
    image = np.where(np.arange(64) // 8 % 2, 50, 10)[None, None].repeat(3, 0).repeat(64, 1).astype(np.float32)
    valid = np.ones((64, 64), bool)
    augmentation = Augmentation((64, 64), flip="none", band_std=(4.0,) * 3, **LEVELS[level])
    results = [augment(augmentation, image, valid, valid.astype(np.int16), seed)[0] for seed in range(30)]
    scales = [augmentation.plan(np.random.default_rng(seed), 64, 64).window.height for seed in range(30)]
    assert (len(set(scales)) > 1) == (level != "none")
    # Where nothing is varied every value lies between the image's own.
    brighter = any(out.max() > image.max() + 0.05 for out in results)
    assert brighter == (level == "standard")


def test_every_level_of_the_flag_exists():
    flag = next(flag for flag in DATA[1] if flag.name == "AUGMENT")
    assert flag.choices == tuple(LEVELS)
