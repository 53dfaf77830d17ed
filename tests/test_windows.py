"""Windows of a point-wise network equal the whole image, whatever the sizes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from nets.errors import UserError
from utils.data.raster import Window
from utils.inference.blending import PROFILES, axis_weights, profile
from utils.inference.windows import WindowGrid, predict_rows, window_starts

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


def stitched(predict, image, valid, window, overlap, batch_size=3, classes=4, **more) -> np.ndarray:
    pieces, due = [], 0
    rows = predict_rows(
        predict, reader(image, valid), *valid.shape, classes, window, overlap, batch_size, **more
    )
    for top, piece in rows:
        assert top == due  # the yields partition the rows, in order
        assert piece.dtype == np.float32
        due += piece.shape[1]
        pieces.append(piece)
    assert due == valid.shape[0]
    return np.concatenate(pieces, axis=1)


@pytest.mark.parametrize(("height", "width", "window", "overlap"), SIZES)
@pytest.mark.parametrize("blend", sorted(PROFILES))
def test_pointwise_network_gives_the_whole_image(height, width, window, overlap, blend):
    image, valid = scene(height, width)
    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(stitched(pointwise(), image, valid, window, overlap, blend=blend) - whole).max() < 1e-5


def test_pointwise_network_at_random_sizes():
    rng = np.random.default_rng(1)
    for _ in range(40):
        height, width, window = (int(rng.integers(1, high)) for high in (120, 120, 70))
        overlap, batch_size = float(rng.uniform(0, 0.9)), int(rng.integers(1, 9))
        image, valid = scene(height, width)
        whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
        result = stitched(pointwise(), image, valid, window, overlap, batch_size)
        assert np.abs(result - whole).max() < 1e-5, (height, width, window, overlap, batch_size)


def test_rows_leave_in_small_pieces(monkeypatch):
    monkeypatch.setattr("utils.inference.windows.PIECE_BYTES", 4 * 4 * 50 * 5)
    image, valid = scene(83, 50)
    pieces = list(predict_rows(pointwise(), reader(image, valid), 83, 50, 4, 32))
    assert max(piece.shape[1] for _, piece in pieces) == 5
    assert np.array_equal([top for top, _ in pieces][1:], np.cumsum([p.shape[1] for _, p in pieces])[:-1])
    whole = pointwise()(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(np.concatenate([piece for _, piece in pieces], 1) - whole).max() < 1e-5


def test_batch_size_does_not_matter_for_a_network_with_context():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 9, padding=4)
    predict = torch.inference_mode()(lambda images: layer(torch.nan_to_num(images)).softmax(1))
    image, valid = scene(90, 75)
    one = stitched(predict, image, valid, 32, 0.5, batch_size=1)
    many = stitched(predict, image, valid, 32, 0.5, batch_size=5)
    assert np.abs(one - many).max() < 1e-5


def test_blending_is_the_weighted_mean_over_windows():
    """Against an independent loop over windows with a map of weights."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 9, padding=4)
    predict = torch.inference_mode()(lambda images: layer(images).softmax(1))
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
    for _ in predict_rows(pointwise(), reader(image, valid, log), 101, 40, 4, 32, 0.6):
        pass
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
    assert weights.min() > 0
    assert np.abs(total - 1).max() < 1e-6
    if blend == "gaussian":
        assert profile(32)[16] > 100 * profile(32)[0]


def test_unknown_blending_names_the_known_ones():
    with pytest.raises(UserError, match=r"'cosin' is given; gaussian, flat exist"):
        profile(32, "cosin")
