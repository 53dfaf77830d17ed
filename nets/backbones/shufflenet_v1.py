"""ShuffleNet v1: grouped 1x1 convolutions, whose groups a shuffle of the channels lets speak to each other.

Paper: Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
CVPR 2018, https://arxiv.org/abs/1707.01083: width 1x with 3 groups, figure 2 and table 1.

Deviations: none; the classifier is left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.staged import StagedBackbone
from nets.layers.conv import ConvNormAct
from nets.layers.init import init_weights

GROUPS = 3
STEM_WIDTH = 24
WIDTHS = (240, 480, 960)
REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1 -> shuffle -> depthwise 3x3 -> grouped 1x1, added to the input or put beside it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups_first: int):
        super().__init__()
        inner = out_channels // 4
        # At stride 2 the averaged input takes its place beside the branch.
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.stride, self.groups = stride, groups_first
        self.reduce = ConvNormAct(in_channels, inner, 1, groups=groups_first)
        self.depthwise = ConvNormAct(inner, inner, 3, stride=stride, groups=inner, act=False)
        self.expand = ConvNormAct(inner, branch, 1, groups=GROUPS, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        y = self.reduce(x)
        y = y.unflatten(1, (GROUPS, -1)).transpose(1, 2).flatten(1, 2)
        y = self.expand(self.depthwise(y))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), y], dim=1))
        return F.relu(x + y)


class ShuffleNetV1(StagedBackbone):
    """ShuffleNet v1.

    Args:
        name: the catalogue's.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all five.
    """

    def __init__(self, name: str, *, bands: int, stages: int | None = None):
        parts: list[nn.Module] = [
            ConvNormAct(bands, STEM_WIDTH, 3, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        before = STEM_WIDTH
        for i, (width, repeats) in enumerate(zip(WIDTHS, REPEATS, strict=True)):
            # So few channels come from the stem that its first 1x1 convolution is not grouped (section 3.3).
            first = ShuffleUnit(before, width, 2, 1 if i == 0 else GROUPS)
            parts.append(
                nn.Sequential(first, *(ShuffleUnit(width, width, 1, GROUPS) for _ in range(repeats - 1)))
            )
            before = width
        super().__init__(name, parts, channels=(STEM_WIDTH, STEM_WIDTH, *WIDTHS), stages=stages)
        init_weights(self)
