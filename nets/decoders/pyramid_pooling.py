"""Pyramid pooling: averages over grids of several sizes tell every pixel about the whole scene."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.grid import GridMean
from nets.layers.resize import resize


class PyramidPooling(nn.Module):
    """Average over each grid, project, enlarge to the input, join (Zhao et al., PSPNet, section 3.2).

    Args:
        in_channels: channels of the input.
        channels: width of each grid's projection.
        scales: cells along a side of each grid.
        norm_single: batch norm behind the grid of one cell, which then needs two images per batch in
            training.
        align_corners: how the grids are enlarged.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        scales: Sequence[int] = (1, 2, 3, 6),
        *,
        norm_single: bool = True,
        align_corners: bool = False,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(
                GridMean(scale),
                ConvNormAct(in_channels, channels, 1, norm=norm_single or scale > 1),
            )
            for scale in scales
        )
        self.out_channels = in_channels + len(scales) * channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C + S D, h, w), S grids of width D."""
        size = x.shape[-2:]
        pooled = [resize(branch(x), size, align_corners=self.align_corners) for branch in self.branches]
        return torch.cat([x, *pooled], dim=1)


class PSPDecoder(nn.Module):
    """Pyramid pooling on one map, then a convolution.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        index: map that is used.
        scales: cells along a side of each grid.
        pool_channels: width of each grid's projection; None shares the map's channels among the grids.
        join_kernel: side of the last convolution's kernel in pixels.
        norm_single: batch norm behind the grid of one cell.
        align_corners: how the grids are enlarged.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        index: int = -1,
        scales: Sequence[int] = (1, 2, 3, 6),
        pool_channels: int | None = None,
        join_kernel: int = 3,
        norm_single: bool = True,
        align_corners: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.index = index
        width = in_channels[index]
        self.pyramid = PyramidPooling(
            width,
            width // len(scales) if pool_channels is None else pool_channels,
            scales,
            norm_single=norm_single,
            align_corners=align_corners,
        )
        self.join = ConvNormAct(self.pyramid.out_channels, channels, join_kernel)
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        return self.join(self.pyramid(features[self.index]))
