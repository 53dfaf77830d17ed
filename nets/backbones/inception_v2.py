"""Inception v2 (BN-Inception): GoogLeNet with batch norm, its 5x5 convolutions made of two 3x3.

Paper: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", ICML 2015, https://arxiv.org/abs/1502.03167, figure 5. (The later "Rethinking the Inception
Architecture" calls another step towards its v3 by the same name.)

Deviations: the stem is an ordinary 7x7 convolution instead of a separable one; the pooled branches of blocks
4c and 4d have 96 channels, with which the blocks have the 576 that the figure states (its 128 would give
608). Classifier left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets.backbones.staged import StagedBackbone
from nets.layers.conv import ConvNormAct
from nets.layers.init import init_weights


@dataclass(frozen=True)
class BlockSize:
    """Channels of the branches: 1x1, (reduce, 3x3), (reduce, double 3x3), pooled; 0 leaves one out."""

    single: int
    triple: tuple[int, int]
    double: tuple[int, int]
    pooled: int
    maximum: bool = False

    def out_channels(self, in_channels: int) -> int:
        """Return the channels of the block's result."""
        return self.single + self.triple[1] + self.double[1] + (self.pooled or in_channels)


# Rows of figure 5; the last of the stride-8 and the stride-16 blocks halve the resolution and start the next
# part.
BLOCKS = (
    (BlockSize(64, (64, 64), (64, 96), 32), BlockSize(64, (64, 96), (64, 96), 64)),
    (
        BlockSize(0, (128, 160), (64, 96), 0, maximum=True),
        BlockSize(224, (64, 96), (96, 128), 128),
        BlockSize(192, (96, 128), (96, 128), 128),
        BlockSize(160, (128, 160), (128, 160), 96),
        BlockSize(96, (128, 192), (160, 192), 96),
    ),
    (
        BlockSize(0, (128, 192), (192, 256), 0, maximum=True),
        BlockSize(352, (192, 320), (160, 224), 128),
        BlockSize(352, (192, 320), (192, 224), 128, maximum=True),
    ),
)


class InceptionBlock(nn.Module):
    """Branches of different reach, joined; without a 1x1 branch it halves the resolution."""

    def __init__(self, in_channels: int, size: BlockSize):
        super().__init__()
        stride = 1 if size.single else 2
        pool = nn.MaxPool2d if size.maximum else nn.AvgPool2d
        pooled = [pool(3, stride=stride, padding=1)]
        if size.pooled:
            pooled.append(ConvNormAct(in_channels, size.pooled, 1))
        branches = [
            nn.Sequential(
                ConvNormAct(in_channels, size.triple[0], 1), ConvNormAct(*size.triple, 3, stride=stride)
            ),
            nn.Sequential(
                ConvNormAct(in_channels, size.double[0], 1),
                ConvNormAct(*size.double, 3),
                ConvNormAct(size.double[1], size.double[1], 3, stride=stride),
            ),
            nn.Sequential(*pooled),
        ]
        if size.single:
            branches.insert(0, ConvNormAct(in_channels, size.single, 1))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class InceptionV2(StagedBackbone):
    """BN-Inception.

    Args:
        name: the catalogue's.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all five.
    """

    def __init__(self, name: str, *, bands: int, stages: int | None = None):
        parts = [
            ConvNormAct(bands, 64, 7, stride=2),
            nn.Sequential(
                nn.MaxPool2d(3, stride=2, padding=1), ConvNormAct(64, 64, 1), ConvNormAct(64, 192, 3)
            ),
        ]
        channels, width = [64, 192], 192
        for i, sizes in enumerate(BLOCKS):
            blocks: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if i == 0 else []
            for size in sizes:
                blocks.append(InceptionBlock(width, size))
                width = size.out_channels(width)
            parts.append(nn.Sequential(*blocks))
            channels.append(width)
        super().__init__(name, parts, channels=channels, stages=stages)
        init_weights(self)
