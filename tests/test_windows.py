"""Windows of a point-wise network equal the whole image, whatever the sizes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.errors import UserError
from utils.data.raster import Window
from utils.inference.blending import PROFILES, Blender, axis_weights, profile
from utils.inference.windows import WindowGrid, pad_by_reflection, predict_blocks, window_starts

SIZES = [
    # height, width, window, overlap
    (1, 1, 32, 0.5),
    (7, 90, 32, 0.5),
    (90, 7, 32, 0.25),
    (32, 32, 32, 0.5),
    (33, 65, 32, 0.0),
    (64, 65, 32, 0.5),
    (100, 57, 33, 0.9),
    (101, 130, 48, 0.75),
    (97, 101, (32, 56), 0.3),
    (70, 71, 64, 0.0),
]


def pointwise(classes: int = 4, bands: int = 3):
    """A 1x1 convolution and softmax that maps NaN to 0, as networks here do."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(bands, classes, 1)

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return layer(torch.nan_to_num(images)).softmax(1)

    return predict


def scene(height: int, width: int, bands: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(bands, height, width)).astype(np.float32)
    return image, np.ones((height, width), bool)


def reader(image: np.ndarray, valid: np.ndarray, log: list | None = None):
    def read(window: Window):
        if log is not None:
            log.append(window)
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return image[:, rows, columns], valid[rows, columns]

    return read


def stitched(predict, image, valid, window, overlap, batch_size=3, start=0, **more) -> np.ndarray:
    """Put the blocks together, NaN where invalid; every pixel comes exactly once, none above `start`."""
    height, width = valid.shape
    whole = np.full((4, height, width), np.nan, np.float32)
    seen = np.zeros((height, width), int)
    grid = WindowGrid.cover(height, width, window, overlap)
    read = reader(image, valid)
    for block in predict_blocks(predict, read, (height, width), grid, batch_size, start=start, **more):
        part = (slice(block.top, block.top + len(block.valid)),)
        part += (slice(block.left, block.left + block.valid.shape[1]),)
        seen[part] += 1
        assert np.array_equal(block.valid, valid[part])
        if block.probabilities is None:
            assert not block.valid.any()
        else:
            assert block.probabilities.dtype == torch.float32
            whole[(slice(None), *part)] = np.where(block.valid, block.probabilities.cpu().numpy(), np.nan)
    assert (seen[:start] == 0).all() and (seen[start:] == 1).all()
    return whole


@pytest.mark.parametrize(("height", "width", "window", "overlap"), SIZES)
@pytest.mark.parametrize("blend", sorted(PROFILES))
def test_pointwise_network_gives_the_whole_image(height, width, window, overlap, blend):
    image, valid = scene(height, width)
    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(stitched(pointwise(), image, valid, window, overlap, blend=blend) - whole).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    window=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(sorted(PROFILES)),
    batch_size=st.integers(1, 9),
    least=st.integers(0, 80),
    holes=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119), st.integers(1, 100)), max_size=3),
)
def test_pointwise_network_at_any_size(size, window, overlap, blend, batch_size, least, holes):
    image, valid = scene(*size)
    for top, left, side in holes:
        valid[top : top + side, left : left + side] = False
    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    more = {"blend": blend, "least": (least, least)}
    result = stitched(pointwise(), image, valid, window, overlap, batch_size, **more)
    assert np.array_equal(np.isnan(result[0]), ~valid)
    assert np.abs(result - whole)[:, valid].max(initial=0) < 1e-5


def context():
    """A network whose result depends on the whole neighbourhood."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 9, padding=4)
    return torch.inference_mode()(lambda images: layer(torch.nan_to_num(images)).softmax(1))


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 100), st.integers(1, 60)),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(sorted(PROFILES)),
    share=st.floats(0, 0.99),
)
def test_a_later_start_gives_the_same_bits(size, overlap, blend, share):
    image, valid = scene(*size)
    start = int(share * size[0])
    whole = stitched(context(), image, valid, 32, overlap, 1, blend=blend)
    rest = stitched(context(), image, valid, 32, overlap, 1, start=start, blend=blend)
    assert np.array_equal(whole[:, start:], rest[:, start:])


def test_what_waits_is_the_overlap_and_not_the_scene():
    grid = WindowGrid.cover(1000, 300, 64, 0.25)
    blender = Blender(grid.tops, grid.lefts, grid.size, (1000, 300), "gaussian")
    for row in range(len(grid.tops)):
        for column in range(len(grid.lefts)):
            blender.add(row, column, torch.ones(2, 64, 64))
    assert blender.below.shape == (2, blender.waiting_rows, 300)
    assert WindowGrid.cover(64 + 48 * 5, 300, 64, 0.25).tops[-1] == 48 * 5
    assert Blender([0, 48, 96], [0], (64, 64), (160, 64), "flat").waiting_rows == 16


def test_no_blending_takes_the_window_whose_middle_is_nearest():
    weights = axis_weights((0, 4, 6), 8, 14, "none")
    assert weights.tolist() == [
        [1, 1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 1, 1],
    ]


def test_a_small_scene_is_continued_by_reflection():
    image, valid = scene(5, 40)
    seen = []

    def predict(images):
        seen.append(images)
        return pointwise()(images)

    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(stitched(predict, image, valid, 48, 0.5, least=(48, 48)) - whole).max() < 1e-5
    assert seen[0].shape == (1, 3, 48, 48)
    assert np.array_equal(seen[0][0, :, 5:9, :40], image[:, 3::-1])
    assert np.array_equal(seen[0][0, :, :5, 40:], image[:, :, 38:30:-1])
    assert (pad_by_reflection(image[:, :1, :1], (3, 4)) == image[:, :1, :1]).all()


def test_batch_size_does_not_matter_for_a_network_with_context():
    image, valid = scene(90, 75)
    valid[30:70, 20:60] = False
    one = stitched(context(), image, valid, 32, 0.5, batch_size=1)
    many = stitched(context(), image, valid, 32, 0.5, batch_size=5)
    assert np.abs(one - many)[:, valid].max() < 1e-5


def test_blending_is_the_weighted_mean_over_windows():
    """Against an independent loop over windows with a map of weights."""
    predict = context()
    image, valid = scene(70, 61)
    total, weights = np.zeros((4, 70, 61)), np.zeros((70, 61))
    bell = np.outer(profile(32), profile(32))
    for top in (0, 16, 32, 38):
        for left in (0, 16, 29):
            part = torch.from_numpy(image[None, :, top : top + 32, left : left + 32])
            total[:, top : top + 32, left : left + 32] += predict(part)[0].numpy() * bell
            weights[top : top + 32, left : left + 32] += bell
    assert np.abs(stitched(predict, image, valid, 32, 0.5) - total / weights).max() < 1e-5


def test_every_row_is_read_once_in_order():
    image, valid = scene(101, 40)
    log: list[Window] = []
    grid = WindowGrid.cover(101, 40, 32, 0.6)
    for threads in (0, 1, 3):
        log.clear()
        list(predict_blocks(pointwise(), reader(image, valid, log), (101, 40), grid, threads=threads))
        assert [w.top for w in log] == [0, *np.cumsum([w.height for w in log])[:-1]]
        assert sum(w.height for w in log) == 101
        assert {(w.left, w.width) for w in log} == {(0, 40)}


def test_windows_without_data_are_skipped_and_invalid_pixels_are_nan():
    image, valid = scene(96, 96)
    valid[:, :64] = False
    valid[70:, 90:] = False
    image[:, ~valid] = 1e30  # must never reach the network
    seen, done = [], []

    def predict(images):
        seen.append(images)
        return pointwise()(images)

    result = stitched(predict, image, valid, 32, 0.0, progress=done.append)
    assert sum(len(images) for images in seen) == 3
    assert sum(done) == 9
    assert all(images.nan_to_num().abs().max() < 100 for images in seen)
    assert np.array_equal(np.isnan(result), np.broadcast_to(~valid, result.shape))
    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(result - whole)[:, valid].max() < 1e-5


def test_scene_without_any_data_never_calls_the_network():
    image, valid = scene(50, 50)
    result = stitched(lambda images: pytest.fail("called"), image, valid & False, 32, 0.5)
    assert np.isnan(result).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float64"])
def test_images_arrive_as_float_in_data_units(dtype):
    image = (np.arange(3 * 40 * 40).reshape(3, 40, 40) % 251).astype(dtype)
    seen = []

    def predict(images):
        seen.append(images)
        return pointwise()(images)

    stitched(predict, image, np.ones((40, 40), bool), 32, 0.0)
    assert seen[0].dtype == torch.float32
    assert np.array_equal(seen[0][0].numpy(), image[:, :32, :32].astype(np.float32))


@pytest.mark.parametrize("length", [1, 5, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_starts_cover_everything_with_full_windows(length, overlap):
    size = min(32, length)
    starts = window_starts(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] + size == length
    assert list(starts) == sorted(set(starts))
    assert all(b - a <= max(1, round(size * (1 - overlap))) for a, b in pairwise(starts))


def test_grid_counts_windows_and_shrinks_to_the_scene():
    grid = WindowGrid.cover(100, 20, 32, 0.5)
    assert (grid.height, grid.width, grid.lefts, len(grid)) == (32, 20, (0,), len(grid.tops))
    with pytest.raises(ValueError, match="overlap 1"):
        WindowGrid.cover(100, 20, 32, 1.0)


@pytest.mark.parametrize("blend", sorted(PROFILES))
def test_weights_are_positive_and_sum_to_one(blend):
    starts = window_starts(101, 32, 0.5)
    weights = axis_weights(starts, 32, 101, blend)
    total = np.zeros(101)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + 32] += row
    assert weights.min() > 0 or blend == "none"
    assert np.abs(total - 1).max() < 1e-6
    if blend == "gaussian":
        assert profile(32)[16] > 100 * profile(32)[0]


def test_unknown_blending_names_the_known_ones():
    with pytest.raises(UserError, match=r"'cosin' is given; gaussian, cosine, flat, none exist"):
        profile(32, "cosin")
