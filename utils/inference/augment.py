"""Test-time augmentation: mean probabilities over mirrored, turned and resized copies of an image."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Predict = Callable[[Tensor], Tensor]


class Pass(NamedTuple):
    """One copy of the image: counter-clockwise quarter turns, then left-right mirrored; and its scale."""

    turns: int
    mirror: bool
    scale: float


def passes(words: Sequence[str | float]) -> list[Pass]:
    """Return all combinations of what is asked for; the first one is the image as it is.

    Args:
        words: "flip", "rot" and factors of size; the size as it is always belongs to them.
    """
    scales = [1.0, *(word for word in words if not isinstance(word, str) and word != 1)]
    turns = range(4 if "rot" in words else 1)
    mirrors = (False, True) if "flip" in words else (False,)
    return [Pass(turn, mirror, scale) for scale, mirror, turn in itertools.product(scales, mirrors, turns)]


def augmented(predict: Predict, words: Sequence[str | float]) -> Predict:
    """Return images (B, C, h, w) -> mean probabilities (B, K, h, w) over all copies that `words` ask for.

    Args:
        predict: images of any size -> probabilities of that size.
        words: see `passes`; without any the result is `predict` itself.
    """
    plan = passes(words)
    if len(plan) == 1:
        return predict

    def mean(images: Tensor) -> Tensor:
        with torch.inference_mode():
            total = predict(images).float()
            for one in plan[1:]:
                total += _backward(predict(_forward(images, one)).float(), one, images.shape[-2:])
            return total.div_(len(plan))

    return mean


def _forward(images: Tensor, one: Pass) -> Tensor:
    size = [max(1, round(side * one.scale)) for side in images.shape[-2:]]
    turned = _resize(images, size).rot90(one.turns, (-2, -1))
    return turned.flip(-1) if one.mirror else turned


def _backward(probabilities: Tensor, one: Pass, size: Sequence[int]) -> Tensor:
    mirrored = probabilities.flip(-1) if one.mirror else probabilities
    turned = mirrored.rot90(-one.turns, (-2, -1))
    if tuple(turned.shape[-2:]) == tuple(size):
        return turned
    return F.interpolate(turned, size=tuple(size), mode="bilinear", align_corners=False)


def _resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images (B, C, h, w) bilinearly; what invalid pixels cover mostly becomes invalid."""
    if list(images.shape[-2:]) == list(size):
        return images

    def resize(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)

    images = images.float()
    valid = torch.isfinite(images).all(1, keepdim=True)
    if bool(valid.all()):
        return resize(images)
    share = resize(valid.to(images.dtype))
    values = resize(torch.where(valid, images, 0)) / share
    return torch.where(share < 0.5, torch.nan, values)
