"""Positions of pixels as sines and cosines."""

import math

import torch
from torch import Tensor


def sine_positions(
    size: tuple[int, int],
    channels: int,
    *,
    device: torch.device,
    normalize: bool = True,
    scale: float = 2 * math.pi,
    temperature: float = 10000.0,
    offset: float = 0.0,
    eps: float = 1e-6,
) -> Tensor:
    """Return (h, w, channels) in float32: half of the channels say the row, half the column.

    Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020,
    https://arxiv.org/abs/2005.12872, section A.4.

    Args:
        size: h, w in pixels.
        channels: a multiple of four.
        device: of the result.
        normalize: rows and columns go from 0 to `scale` whatever the size, else they are counted from 1.
        scale: of the last row and column, in radians.
        temperature: ratio of the longest wavelength to the shortest.
        offset: in pixels, added before the normalisation.
        eps: added to the sides in the normalisation.
    """
    half = channels // 2
    # In float32 and in this order of operations as everybody does it, so that bits agree.
    exponents = torch.arange(0, half, 2, device=device, dtype=torch.float32) / half
    wavelengths = temperature**exponents
    sides = []
    for side in size:
        places = torch.arange(1, side + 1, device=device, dtype=torch.float32)
        if normalize:
            # The last place; a trace takes a slice of it for the whole where there is one alone.
            places = (places + offset) / (places.amax(0, keepdim=True) + eps) * scale
        angles = places[:, None] / wavelengths
        sides.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))  # (side, channels / 2)
    rows, columns = sides
    return torch.cat([rows[:, None].expand(*size, half), columns[None].expand(*size, half)], dim=-1)
