"""Context from several modules that look at one map side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.decoders.fcn import joined_channels, select_features
from nets.layers.conv import ConvNormAct, set_norm_eps


class BranchDecoder(nn.Module):
    """Branches on one map, joined with it by a 3x3 convolution.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width, also of each branch.
        branches: modules that map (B, C, h, w) to (B, D, h, w).
        index: maps that are used; several are resized to the first of them and concatenated.
        align_corners: how several maps are resized.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        branches: Sequence[nn.Module],
        *,
        index: Sequence[int],
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.index, self.align_corners = tuple(index), align_corners
        self.branches = nn.ModuleList(branches)
        self.join = ConvNormAct(joined_channels(in_channels, index) + len(branches) * channels, channels)
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        x = select_features(features, self.index, align_corners=self.align_corners)
        return self.join(torch.cat([x, *(branch(x) for branch in self.branches)], dim=1))
