"""Where crops lie and how they are turned: image and mask always by the same plan."""

from dataclasses import replace

import numpy as np
import pytest

from nets.errors import UserError
from tests.helpers import augmented
from utils.data.augment_level import Level
from utils.data.geometry import resize_image, resize_mask, warp_mask
from utils.data.labels import IGNORE
from utils.data.raster import Window
from utils.data.transforms import Augmentation

SCALED = Level(scale=(0.5, 2.0))
LEVELS = {
    "scale": SCALED,
    "rotate": Level(rotate=20, chance=1),
    "any angle": Level(rotate=180, chance=1, scale=(0.7, 1.5)),
}


def position_coded(height, width):
    """Image (2, H, W) of row and column numbers, and a mask that names the pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns]).astype(np.float32), (rows * width + columns).astype(np.int16)


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize("flip", ["none", "h", "hv", "d4"])
@pytest.mark.parametrize("size", [(120, 150), (30, 160), (20, 24)])
def test_image_and_mask_move_together(level, flip, size):
    image, mask = position_coded(*size)
    valid = np.ones(size, dtype=bool)
    augmentation = Augmentation((32, 48), LEVELS[level], flip)
    kept, orientations = 0, set()
    for seed in range(40):
        out, good, classes = augmented(augmentation, image, valid, mask, seed)
        assert out.shape == (2, 32, 48) and good.shape == classes.shape == (32, 48)
        assert (classes[~good] == IGNORE).all() and (out[:, ~good] == 0).all()
        # A linear image is interpolated exactly: its value is the place, and the mask names the pixel there.
        rows, columns = np.divmod(classes[good], size[1])
        assert np.abs(out[0][good] - rows).max() <= 0.501 and np.abs(out[1][good] - columns).max() <= 0.501
        kept += good.mean() / 40
        grown = np.where(good, out[1], np.nan)
        slopes = [np.nanmean(np.diff(grown, axis=axis)) for axis in (0, 1)]
        steepest = int(np.argmax(np.abs(slopes)))
        orientations.add((steepest, slopes[steepest] > 0))
    assert kept > {(120, 150): 0.85, (30, 160): 0.5, (20, 24): 0.25}[size]
    if level != "any angle":
        assert len(orientations) == {"none": 1, "h": 2, "hv": 2, "d4": 4}[flip]


def test_d4_draws_all_eight_and_hv_all_four():
    image = np.array([[[0, 1], [2, 3]]], dtype=np.uint8)
    for flip, count in (("none", 1), ("h", 2), ("hv", 4), ("d4", 8)):
        augmentation = Augmentation((2, 2), flip=flip)
        args = (image, np.ones((2, 2), bool), image[0].astype(np.int16))
        seen = {augmented(augmentation, *args, seed).image.tobytes() for seed in range(200)}
        assert len(seen) == count
        assert all(
            np.array_equal(a[0][0], a[2]) for a in (augmented(augmentation, *args, s) for s in range(9))
        )


def test_scale_reads_only_the_window_and_pads_the_rest():
    augmentation = Augmentation((40, 60), Level(scale=(2, 2)), flip="none")
    plan = augmentation.plan(np.random.default_rng(0), 500, 500)
    assert plan.window[2:] == (20, 30) and plan.size == (40, 60)
    augmentation = Augmentation((40, 60), Level(scale=(0.5, 0.5)), flip="none")
    mask = np.zeros((40, 200), np.int16)
    out, valid, mask = augmented(augmentation, np.ones((1, 40, 200), np.uint8), mask == 0, mask, 0)
    assert (
        valid[:20].all() and not valid[20:].any() and (mask[20:] == IGNORE).all() and (out[0, :20] == 1).all()
    )


def test_rotation_reads_no_more_than_the_turned_crop_and_needs_no_more():
    image = np.random.default_rng(0).random((2, 300, 400)).astype(np.float32)
    valid, mask = np.ones((300, 400), bool), np.arange(300 * 400).reshape(300, 400).astype(np.int16)
    augmentation = Augmentation((64, 96), Level(rotate=45, chance=1, scale=(0.8, 1.5)), flip="none")
    for seed in range(20):
        plan = augmentation.plan(np.random.default_rng(seed), 300, 400)
        cosine, sine = abs(np.cos(plan.rotation.angle)), abs(np.sin(plan.rotation.angle))
        box = np.array([cosine * 64 + sine * 96, sine * 64 + cosine * 96]) / plan.rotation.scale
        assert (np.array(plan.window[2:]) <= box + 4).all()
        rng = np.random.default_rng(0)
        top, left, height, width = plan.window
        part = (..., slice(top, top + height), slice(left, left + width))
        crop = augmentation.apply(plan, image[part], valid[part], mask[part], rng)
        assert crop.valid.all(), "there is room for every corner"
        # The same crop out of the whole image.
        moved = plan.rotation._replace(row=plan.rotation.row + top, column=plan.rotation.column + left)
        whole = replace(plan, window=Window(0, 0, 300, 400), rotation=moved)
        expected = augmentation.apply(whole, image, valid, mask, rng)
        np.testing.assert_allclose(crop.image, expected.image, atol=2e-4)
        assert np.mean(crop.mask == expected.mask) > 0.999


def test_rotation_turns_by_angles_of_both_signs_up_to_the_largest():
    image, mask = position_coded(120, 150)
    augmentation = Augmentation((32, 32), Level(rotate=30, chance=1, scale=(2, 2)), flip="none")
    angles = []
    for seed in range(60):
        out, good, _ = augmented(augmentation, image, mask >= 0, mask, seed)
        assert good.all()
        down, right = (np.diff(out[0], axis=axis).mean() for axis in (0, 1))
        assert np.hypot(down, right) == pytest.approx(0.5, rel=1e-3)  # at twice the size, half a pixel
        angles.append(np.degrees(np.arctan2(right, down)))
    assert -30.01 < min(angles) < -25 and 25 < max(angles) < 30.01
    half = [
        Augmentation((32, 32), Level(rotate=30)).plan(np.random.default_rng(s), 99, 99) for s in range(99)
    ]
    assert 30 < sum(plan.rotation is not None for plan in half) < 70


def test_nothing_outside_of_the_image_has_a_class():
    mask = np.full((20, 24), 3, np.int16)
    plan = Augmentation((40, 48), Level(rotate=45, chance=1), flip="none").plan(
        np.random.default_rng(0), 20, 24
    )
    warped = warp_mask(plan, mask)
    assert 0.15 < (warped == 3).mean() < 0.3 and set(np.unique(warped)) == {IGNORE, 3}


def test_windows_reach_every_corner():
    augmentation = Augmentation((4, 4), flip="none")
    tops = {augmentation.plan(np.random.default_rng(seed), 7, 4).window.top for seed in range(60)}
    assert tops == {0, 1, 2, 3}


def test_more_plans_change_the_place_alone():
    augmentation = Augmentation((32, 48), Level(scale=(0.5, 2.0), rotate=20, chance=1), flip="d4")
    plans = augmentation.plans(np.random.default_rng(3), 200, 300)
    first, *others = (next(plans) for _ in range(8))
    for plan in others:
        assert (plan.size, plan.turns, plan.mirror) == (first.size, first.turns, first.mirror)
        assert plan.rotation.angle == first.rotation.angle
    assert len({plan.window[:2] for plan in others}) == 7


@pytest.mark.parametrize("level", [Level(), SCALED, Level(rotate=45, chance=1)])
def test_crops_contain_one_of_the_wanted_pixels(level):
    image, mask = position_coded(100, 140)
    positions = np.array([[0, 0], [99, 139], [40, 70]])
    ordered = [row * 140 + column for row, column in positions.tolist()]
    wanted = set(ordered)
    augmentation = Augmentation((33, 47), level, "d4")
    found, turned = [], 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        plan = next(augmentation.plans(rng, 100, 140, positions=positions))
        turned += plan.rotation is not None
        top, left, height, width = plan.window
        inside = mask[top : top + height, left : left + width]
        if plan.rotation is not None:
            part = (..., slice(top, top + height), slice(left, left + width))
            crop = augmentation.apply(plan, image[part], mask[part] >= 0, mask[part], rng).mask
            # The nearest pixels of a turned grid leave some out, never both of two neighbours.
            rows, columns = np.divmod(crop[crop != IGNORE], 140)
            near = [(abs(rows - row) + abs(columns - column)).min() < 2 for row, column in positions]
            inside = np.array(ordered)[near]
        found.append(wanted & set(inside.ravel().tolist()))
    assert all(found) and set.union(*found) == wanted
    # In the image's corners there is no room for a turned crop.
    assert (turned > 30) == bool(level.rotate)


def test_places_and_scales_of_the_old_levels_stay_what_they_were():
    level = Level(scale=(0.5, 2.0), brightness=0.1, contrast=0.1)
    plan = Augmentation((176, 240), level, "d4").plan(np.random.default_rng((0, 1, 2)), 500, 700)
    assert (plan.window, plan.size, plan.turns, plan.mirror) == PINNED
    assert plan.rotation is None


PINNED = (Window(204, 526, 132, 97), (240, 176), 1, False)


def test_the_generator_decides_everything():
    image, mask = position_coded(60, 80)
    args = (image, np.ones((60, 80), bool), mask)
    augmentation = Augmentation((24, 20), LEVELS["any angle"], flip="d4")
    for seed in range(5):
        one, two = augmented(augmentation, *args, seed), augmented(augmentation, *args, seed)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(augmented(augmentation, *args, 0)[0], augmented(augmentation, *args, 1)[0])


def test_invalid_pixels_spread_and_never_leak():
    image = np.full((2, 32, 32), 100.0, np.float32)
    valid = np.ones((32, 32), bool)
    valid[10:14, 10:14] = False
    image[:, ~valid] = -9999
    mask = np.zeros((32, 32), np.int16)
    for level in LEVELS.values():
        for seed in range(20):
            out, good, classes = augmented(Augmentation((32, 32), level), image, valid, mask, seed)
            np.testing.assert_allclose(out[:, good], 100, rtol=1e-6)
            assert (classes[~good] == IGNORE).all() and (out[:, ~good] == 0).all()
            assert (classes[good] == 0).all()


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
        Augmentation((0, 8))
