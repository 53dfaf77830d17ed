"""Multi-scale deformable attention: each pixel looks at a few places of its own choice on every map.

Paper: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR 2021,
https://arxiv.org/abs/2010.04159, section 4.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_by_grid(maps: Tensor, places: Tensor) -> Tensor:
    """Map (M, C, h, w) and places (M, N, P, 2) to bilinear samples (M, C, N, P), zero outside.

    A place is (x, y) as a share of width and height: 0 is the outer edge of the first pixel.
    """
    return F.grid_sample(maps, 2 * places - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


def sample_by_corners(maps: Tensor, places: Tensor) -> Tensor:
    """Map as `sample_by_grid` does, from the four pixels around each place, one after the other."""
    height, width = maps.shape[-2:]
    sides = torch.tensor([width, height], dtype=places.dtype, device=places.device)
    pixels = places * sides - 0.5
    first = pixels.detach().floor()
    flat, samples = maps.flatten(2), 0.0
    for right, below in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        corner = first + first.new_tensor([right, below])
        inside = ((corner >= 0) & (corner < sides)).all(-1)
        weight = (1 - (pixels - corner).abs()).prod(-1) * inside  # (M, N, P)
        column, row = torch.minimum(corner.nan_to_num().clamp(min=0), sides - 1).long().unbind(-1)
        index = (row * width + column).flatten(1)[:, None].expand(-1, flat.shape[1], -1)
        samples = samples + flat.gather(2, index).unflatten(2, weight.shape[1:]) * weight[:, None]
    return samples


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Map as `sample_by_grid` does, by the function that the device can differentiate.

    MPS has no backward pass of `grid_sample` in many releases of PyTorch; CUDA's is not deterministic.
    """
    strict = (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )
    by_corners = maps.device.type == "mps" or (strict and maps.device.type == "cuda")
    return (sample_by_corners if by_corners else sample_by_grid)(maps, places)


def pixel_centres(sizes: list[tuple[int, int]], *, device: torch.device) -> Tensor:
    """Return the centres (N, 2) of all pixels of maps (h, w) as (x, y) shares, map by map, row by row.

    They are float32, as everybody's.
    """
    centres = []
    for height, width in sizes:
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        centres.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1))
    return torch.cat([each.flatten(0, 1) for each in centres])


class DeformableAttention(nn.Module):
    """Attention to `points` places per head and map, which the query's vector chooses around its own.

    Args:
        channels: width, a multiple of `heads`.
        heads: number of heads.
        levels: number of maps.
        points: places per head and map.
        value_ratio: width of the values, relative to `channels`.
    """

    def __init__(self, channels: int, *, heads: int, levels: int, points: int, value_ratio: float = 1.0):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        width = int(channels * value_ratio)
        self.value, self.project = nn.Linear(channels, width), nn.Linear(width, channels)
        self._start()

    def _start(self) -> None:
        """Start as the authors do: head i looks in direction i, point j of it lies j + 1 pixels away."""
        for layer in (self.offsets, self.weights):
            layer.own_start = True  # at other rules' offsets all heads would look at the same place
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * distances[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())

    def forward(
        self, queries: Tensor, tokens: Tensor, centres: Tensor, sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Map queries (B, Q, D) and tokens (B, N, D) of maps with the given (h, w) to (B, Q, D).

        `centres` (Q, 2) are the queries' own places, (x, y) as shares of width and height.
        """
        # In half precision a place would be pixels off.
        dtype = torch.promote_types(queries.dtype, torch.float32)
        shape = (self.heads, self.levels, self.points)
        offsets = (
            self.offsets(queries).to(dtype).unflatten(-1, (*shape, 2))
        )  # (B, Q, heads, levels, points, 2)
        weights = self.weights(queries).to(dtype).unflatten(-1, (self.heads, -1))
        weights = weights.softmax(dim=-1).unflatten(-1, shape[1:])  # (B, Q, heads, levels, points)
        values = self.value(tokens).to(dtype).unflatten(-1, (self.heads, -1))  # (B, N, heads, V / heads)
        attended, start = 0.0, 0
        for level, (height, width) in enumerate(sizes):
            stop = start + height * width
            maps = values[:, start:stop].permute(0, 2, 3, 1).unflatten(-1, (height, width))
            x, y = offsets[:, :, :, level].unbind(-1)
            shares = torch.stack([x / width, y / height], dim=-1)
            places = centres[:, None, None] + shares  # (B, Q, heads, points, 2)
            sampled = sample(maps.flatten(0, 1), places.transpose(1, 2).flatten(0, 1))
            share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B * heads, Q, points)
            attended = attended + (sampled * share[:, None]).sum(dim=-1)  # (B * heads, V / heads, Q)
            start = stop
        attended = attended.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)  # (B, Q, V)
        return self.project(attended.to(queries.dtype))
