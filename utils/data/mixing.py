"""Crops put together from several samples, and rectangles cut out of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.data.augment_level import Level
from utils.data.raster import Window


class Crop(NamedTuple):
    """Image (C, H, W), valid (H, W) and mask (H, W) or (K, H, W) of one size."""

    image: np.ndarray
    valid: np.ndarray
    mask: np.ndarray


def draw_patches(rng: np.random.Generator, crop_size: tuple[int, int], level: Level) -> list[Window]:
    """Return which part of the crop each sample fills, the first one for the sample itself.

    CutMix: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", ICCV 2019, https://arxiv.org/abs/1905.04899 (the rectangle's share of the area is uniform).
    Mosaic: Bochkovskiy et al., "YOLOv4", 2020, https://arxiv.org/abs/2004.10934 (four quarters about a point
    in the middle half of the crop).
    """
    height, width = crop_size
    whole = [Window(0, 0, height, width)]
    if not (level.mosaic or level.cutmix):
        return whole
    drawn = rng.random()
    if drawn < level.mosaic and min(crop_size) > 1:
        return _quarters(rng, height, width)
    if level.mosaic <= drawn < level.mosaic + level.cutmix:
        share = np.sqrt(rng.random())
        return [*whole, _rectangle(rng, crop_size, (share, share))]
    return whole


def join(crops: Sequence[Crop], patches: Sequence[Window], crop_size: tuple[int, int]) -> Crop:
    """Lay crops into their patches, later ones over earlier ones; together they fill the whole.

    Images of different dtypes are joined in one that holds the values of all.
    """
    if len(crops) == 1:
        return crops[0]
    first = crops[0]
    dtype = np.result_type(*(crop.image.dtype for crop in crops))
    joined = Crop(
        np.empty((len(first.image), *crop_size), dtype),
        np.empty(crop_size, first.valid.dtype),
        np.empty((*first.mask.shape[:-2], *crop_size), first.mask.dtype),
    )
    for crop, patch in zip(crops, patches, strict=True):
        for target, source in zip(joined, crop, strict=True):
            _part(target, patch)[:] = source
    return joined


def cut_out(crop: Crop, level: Level, fill: np.ndarray, rng: np.random.Generator) -> None:
    """Replace the valid pixels of a rectangle by `fill` (C), in place; the mask stays.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
    https://arxiv.org/abs/1708.04552.
    """
    if not level.cutout or rng.random() >= level.chance:
        return
    patch = _rectangle(rng, crop.valid.shape, rng.uniform(0, level.cutout, 2))
    part, valid = _part(crop.image, patch), _part(crop.valid, patch)
    for band, value in zip(part, fill, strict=True):
        band[valid] = value


def _quarters(rng: np.random.Generator, height: int, width: int) -> list[Window]:
    """Return the four parts about a point, in random order."""
    row, column = (int(rng.integers((side + 3) // 4, 3 * side // 4 + 1)) for side in (height, width))
    quarters = [
        Window(top, left, rows, columns)
        for top, rows in ((0, row), (row, height - row))
        for left, columns in ((0, column), (column, width - column))
    ]
    return [quarters[index] for index in rng.permutation(4)]


def _rectangle(rng: np.random.Generator, size: tuple[int, int], shares: Sequence[float]) -> Window:
    """Return a rectangle of these shares of the sides, at least one pixel, anywhere inside."""
    height, width = (max(1, round(side * share)) for side, share in zip(size, shares, strict=True))
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    return Window(int(top), int(left), height, width)


def _part(array: np.ndarray, patch: Window) -> np.ndarray:
    """Return a view of the last two axes."""
    return array[..., patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
