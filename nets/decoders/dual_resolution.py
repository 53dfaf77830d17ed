"""What DDRNet and PIDNet are built of: residual stages, pyramid aggregation, heads that start with a norm.

Hong, Pan, Sun, Jia, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes", 2021, https://arxiv.org/abs/2101.06085
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, NormActConv
from nets.layers.init import init_classifier, init_weights
from nets.layers.resize import resize

# Kernel and stride of the aggregation's pools, between the map itself and its mean (paper, figure 5).
POOLS = ((5, 2), (9, 4), (17, 8))


class ResidualBlock(nn.Module):
    """ResNet's basic block or bottleneck (He et al., https://arxiv.org/abs/1512.03385).

    Args:
        in_channels: channels of the input.
        width: width inside; a bottleneck's result is twice as wide.
        stride: 1 or 2.
        bottleneck: 1x1, 3x3 and 1x1 convolution instead of two 3x3.
        act: ReLU at the end.
    """

    def __init__(
        self, in_channels: int, width: int, *, stride: int = 1, bottleneck: bool = False, act: bool = False
    ):
        super().__init__()
        self.out_channels = width * (2 if bottleneck else 1)
        if bottleneck:
            first = [ConvNormAct(in_channels, width, 1), ConvNormAct(width, width, stride=stride)]
            last = ConvNormAct(width, self.out_channels, 1, act=False)
        else:
            first, last = (
                [ConvNormAct(in_channels, width, stride=stride)],
                ConvNormAct(width, width, act=False),
            )
        self.convs = nn.Sequential(*first, last)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != self.out_channels:
            self.shortcut = ConvNormAct(in_channels, self.out_channels, 1, stride=stride, act=False)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / stride, w / stride)."""
        x = self.convs(x) + self.shortcut(x)
        return F.relu(x) if self.act else x


def create_stage(
    in_channels: int, width: int, blocks: int, *, stride: int = 1, bottleneck: bool = False
) -> nn.Sequential:
    """Build blocks of which the first has the stride.

    Basic blocks end in a ReLU but for the last of several, whose sum other branches read as it is.
    """
    stage = nn.Sequential()
    for i in range(blocks):
        act = not bottleneck and (i < blocks - 1 or blocks == 1)
        shape = {"stride": 1 if i else stride, "bottleneck": bottleneck, "act": act}
        stage.append(ResidualBlock(in_channels, width, **shape))
        in_channels = stage[-1].out_channels
    return stage


def create_stem(bands: int, width: int, blocks: Sequence[int]) -> nn.Sequential:
    """Build what both branches share: an image (B, C, H, W) to (B, 2 width, H / 8, W / 8)."""
    return nn.Sequential(
        ConvNormAct(bands, width, stride=2),
        ConvNormAct(width, width, stride=2),
        create_stage(width, width, blocks[0]),
        nn.ReLU(),
        create_stage(width, 2 * width, blocks[1], stride=2),
        nn.ReLU(),
    )


class PyramidAggregation(nn.Module):
    """Ever wider averages of the deepest map, each added to the one before it and convolved (DAPPM).

    Args:
        in_channels: channels of the map.
        width: of each average's projection.
        channels: channels of the result.
        parallel: every average is added to the map's projection, and all are convolved at once (PAPPM; Xu et
            al., PIDNet, https://arxiv.org/abs/2206.02066, figure 6).
    """

    def __init__(self, in_channels: int, width: int, channels: int, *, parallel: bool = False):
        super().__init__()
        self.parallel = parallel
        pools = [nn.AvgPool2d(kernel, stride, padding=kernel // 2) for kernel, stride in POOLS]
        pools.append(nn.AdaptiveAvgPool2d(1))
        self.project = NormActConv(in_channels, width, 1)
        self.scales = nn.ModuleList(nn.Sequential(pool, NormActConv(in_channels, width, 1)) for pool in pools)
        if parallel:
            together = len(pools) * width
            self.convs: nn.Module = NormActConv(together, together, groups=len(pools))
        else:
            self.convs = nn.ModuleList(NormActConv(width, width) for _ in pools)
        self.join = NormActConv((1 + len(pools)) * width, channels, 1)
        self.shortcut = NormActConv(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        size = x.shape[-2:]
        projected = self.project(x)
        enlarged = [resize(scale(x), size) for scale in self.scales]
        if self.parallel:
            maps = [projected, self.convs(torch.cat([each + projected for each in enlarged], dim=1))]
        else:
            maps = [projected]
            for conv, each in zip(self.convs, enlarged, strict=True):
                maps.append(conv(each + maps[-1]))
        return self.join(torch.cat(maps, dim=1)) + self.shortcut(x)


class NormFirstDecoder(nn.Sequential):
    """Norm -> ReLU -> 3x3 convolution -> norm -> ReLU on one map.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        index: map that is used.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, index: int):
        super().__init__()
        self.conv = NormActConv(in_channels[index], channels)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self.index, self.out_channels = index, channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        return super().forward(features[self.index])


class NormFirstHead(nn.Module):
    """The decoder with a classifier, as auxiliary head.

    Args:
        in_channels: channels of the backbone's maps.
        num_classes: logits per pixel.
        channels: width.
        index: map that is used.
        align_corners: how the logits are resized to the image.
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, *, channels: int, index: int, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.decoder = NormFirstDecoder(in_channels, channels, index=index)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_weights(self.decoder)
        init_classifier(self.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to logits (B, K, h, w) of the chosen map."""
        return self.classifier(self.decoder(features))
