"""Resizing of feature maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nets.layers.margins import is_tracing


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Map (B, C, h, w) to (B, C, *size), bilinear; nothing happens at equal sizes."""
    if _equal(x.shape[-2:], size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def _equal(size: tuple[int, int], other: tuple[int, int]) -> bool:
    if not is_tracing():
        return tuple(size) == tuple(other)
    # It takes half a second, and few runs trace.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    # Equal for the traced image is not enough: it must be so for every one.
    return not torch.jit.is_tracing() and all(
        statically_known_true(side == wanted) for side, wanted in zip(size, other, strict=True)
    )
