"""UPerNet's decoder.

Paper: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018,
https://arxiv.org/abs/1807.10221, section 3.1
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.decoders.pyramid_pooling import PSPDecoder
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.norm import ChannelNorm
from nets.layers.resize import resize

# Epsilon of the norms on the backbone's maps in segmentation_models.pytorch.
FEATURE_NORM_EPS = 1e-6


class UPerDecoder(nn.Module):
    """Pooling pyramid, top-down feature pyramid, fusion at the finest map.

    Args:
        in_channels: channels of the maps, finest first.
        channels: width.
        pool_scales: grids of the pooling pyramid, cells per side.
        align_corners: how maps are enlarged.
        norm_eps: epsilon of the batch norms.
        feature_norm: layer norm on each map.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        pool_scales: Sequence[int],
        *,
        align_corners: bool,
        norm_eps: float,
        feature_norm: bool = False,
    ):
        super().__init__()
        self.norms = nn.ModuleList(
            ChannelNorm(width, eps=FEATURE_NORM_EPS) if feature_norm else nn.Identity()
            for width in in_channels
        )
        self.context = PSPDecoder(
            in_channels, channels, scales=pool_scales, pool_channels=channels, align_corners=align_corners
        )
        self.laterals = nn.ModuleList(ConvNormAct(width, channels, 1) for width in in_channels[:-1])
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in in_channels[:-1])
        self.fuse = ConvNormAct(len(in_channels) * channels, channels, 3)
        self.align_corners = align_corners
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        features = [norm(x) for norm, x in zip(self.norms, features, strict=True)]
        levels = [lateral(x) for lateral, x in zip(self.laterals, features[:-1], strict=True)]
        levels.append(self.context(features))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + self._to(levels[i], levels[i - 1])
        smoothed = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        smoothed.append(levels[-1])
        return self.fuse(torch.cat([self._to(x, smoothed[0]) for x in smoothed], dim=1))

    def _to(self, x: Tensor, other: Tensor) -> Tensor:
        return resize(x, other.shape[-2:], align_corners=self.align_corners)
