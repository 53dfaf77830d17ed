"""Resizing of feature maps."""

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Map (B, C, h, w) to (B, C, *size), bilinear; nothing happens at equal sizes."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
