"""Maps of several strides, each enlarged step by step to the finest, and added: the head of Semantic FPN.

Paper: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, https://arxiv.org/abs/1901.02446,
figure 3
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvGroupNorm, ConvNormAct, set_norm_eps
from nets.layers.resize import resize


def double(x: Tensor, times: int = 1, *, align_corners: bool = False) -> Tensor:
    """Map (B, C, h, w) to (B, C, h * 2 ** times, w * 2 ** times), bilinear, step by step."""
    for _ in range(times):
        x = resize(x, (2 * x.shape[-2], 2 * x.shape[-1]), align_corners=align_corners)
    return x


def add_all(maps: Sequence[Tensor], *, align_corners: bool = False) -> Tensor:
    """Map the (B, C, h_i, w_i) to their sum (B, C, h_0, w_0), the later ones resized to the first."""
    first, *others = maps
    for other in others:
        first = first + resize(other, first.shape[-2:], align_corners=align_corners)
    return first


class Enlargement(nn.Sequential):
    """3x3 convolution -> norm -> ReLU, enlarged by 2, as often as a level needs.

    Args:
        in_channels: channels of the level.
        channels: width of the convolutions.
        doublings: how often it is enlarged; 0 is one convolution alone.
        norm: "group" or "batch".
        align_corners: how it is enlarged.
    """

    def __init__(self, in_channels: int, channels: int, doublings: int, *, norm: str, align_corners: bool):
        conv = ConvGroupNorm if norm == "group" else ConvNormAct
        widths = [in_channels] + [channels] * (max(doublings, 1) - 1)
        super().__init__(*(conv(width, channels, 3) for width in widths))
        self.doublings, self.align_corners = doublings, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h * 2 ** doublings, w * 2 ** doublings)."""
        for conv in self:
            x = double(conv(x), min(self.doublings, 1), align_corners=self.align_corners)
        return x


class LevelSum(nn.Module):
    """Levels enlarged to the finest and added (paper, figure 3), or joined.

    Args:
        in_channels: channels of the levels, finest first.
        strides: of the levels; one at twice the finest's stride is enlarged once.
        channels: width of each level's result.
        norm: "group" or "batch".
        merge: whether the results are added ("add") or concatenated, deepest first ("cat").
        align_corners: how the levels are enlarged.
        norm_eps: epsilon of the norms.

    Raises:
        ValueError: not as many strides as levels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        channels: int,
        norm: str,
        merge: str = "add",
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        if len(strides) != len(in_channels):
            raise ValueError(f"{len(strides)} strides for {len(in_channels)} maps")
        self.levels = nn.ModuleList(
            Enlargement(
                width,
                channels,
                (stride // strides[0]).bit_length() - 1,
                norm=norm,
                align_corners=align_corners,
            )
            for width, stride in zip(in_channels, strides, strict=True)
        )
        self.align_corners, self.merge = align_corners, merge
        self.out_channels = channels * (len(strides) if merge == "cat" else 1)
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        maps = [level(x) for level, x in zip(self.levels, features, strict=True)]
        if self.merge == "cat":
            size = maps[0].shape[-2:]
            return torch.cat([resize(x, size, align_corners=self.align_corners) for x in maps[::-1]], dim=1)
        return add_all(maps, align_corners=self.align_corners)
