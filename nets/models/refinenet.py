"""RefineNet: a cascade of blocks refines the deepest map by the finer ones, along residual paths throughout.

Paper: Lin, Milan, Shen, Reid, "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic
Segmentation", CVPR 2017, https://arxiv.org/abs/1611.06612

Widths, biases and order are those of the authors' MATLAB code (https://github.com/guosheng/refinenet) and
of its PyTorch version, which runs the authors' weights (https://github.com/DrSleep/refinenet-pytorch): 512
channels in the coarsest block and 256 in the others; two residual units on each map of the backbone; three
behind the pooling of each block, which are the paper's one and the two that the next block starts with.

Parameters: the blocks have 42.47 M, 12.39 M, 10.62 M and 10.03 M, the classifier 256 x 9 K + K; for 21
classes they make 118.05 M with ResNet-101 (42.50 M), 99.06 M with ResNet-50 and 133.70 M with ResNet-152.
The PyTorch version has as many; the literature has 118 M for ResNet-101 (Nekrasov et al.,
https://arxiv.org/abs/1810.03272).

Deviations: the paper speaks of two pooling blocks (`pool_blocks=2`, 109.8 M), the authors' weights and that
figure have four. The backbone's batch norms are trained like any other, where the authors keep ImageNet's
statistics. Corners are not aligned where maps are enlarged (`align_corners=true` for the PyTorch version's
way).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.catalogue import create_backbone
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

LEVELS = 4
# The authors drop values of the backbone's maps that are wider than this.
WIDE = 512


def _conv3x3(in_channels: int, channels: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias)


class ResidualConvUnit(nn.Module):
    """Two convolutions without norm, added to their input (paper, figure 3b)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = _conv3x3(channels, channels, bias=True)
        self.conv2 = _conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class ChainedResidualPooling(nn.Module):
    """Each block pools and convolves the result of the one before; all results are summed (figure 3d)."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.convs = nn.ModuleList(_conv3x3(channels, channels) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        total = pooled = F.relu(x)
        for conv in self.convs:
            pooled = conv(F.max_pool2d(pooled, 5, stride=1, padding=2))
            total = total + pooled
        return total


class RefineBlock(nn.Module):
    """Adapt the backbone's map, fuse it with the coarser block's result, pool, convolve (figure 3a).

    Args:
        in_channels: channels of the backbone's map.
        channels: width.
        coarser: channels of the coarser block's result; None for the coarsest.
        pool_blocks: blocks of the chained residual pooling.
        align_corners: how the coarser result is enlarged.
    """

    def __init__(
        self, in_channels: int, channels: int, coarser: int | None, pool_blocks: int, *, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.adapt = nn.Sequential(_conv3x3(in_channels, channels), *_units(channels, 2))
        self.fuse = None
        if coarser is not None:
            self.fuse = nn.ModuleList([_conv3x3(channels, channels), _conv3x3(coarser, channels)])
        self.pool = ChainedResidualPooling(channels, pool_blocks)
        self.output = nn.Sequential(*_units(channels, 3))

    def forward(self, own: Tensor, coarser: Tensor | None) -> Tensor:
        """Map (B, C, h, w) and the coarser block's (B, D', h', w') to (B, D, h, w)."""
        x = self.adapt(own)
        if self.fuse is not None:
            fuse_own, fuse_coarser = self.fuse
            enlarged = resize(fuse_coarser(coarser), x.shape[-2:], align_corners=self.align_corners)
            x = fuse_own(x) + enlarged
        return self.output(self.pool(x))


def _units(channels: int, number: int) -> list[ResidualConvUnit]:
    return [ResidualConvUnit(channels) for _ in range(number)]


class RefineNetDecoder(nn.Module):
    """The cascade, coarsest block first, with dropout on wide maps and on its result.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: widths of the blocks, coarsest first; missing ones repeat the last.
        pool_blocks: blocks of each chained residual pooling.
        dropout: rate at which single values are dropped.
        align_corners: how maps are enlarged.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: Sequence[int],
        *,
        pool_blocks: int,
        dropout: float,
        align_corners: bool,
    ):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList()
        coarser = None
        for i, width in enumerate(reversed(in_channels)):
            own = channels[min(i, len(channels) - 1)]
            self.blocks.append(RefineBlock(width, own, coarser, pool_blocks, align_corners=align_corners))
            coarser = own
        self.out_channels = coarser

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        x = None
        for block, feature in zip(self.blocks, reversed(features), strict=True):
            x = block(self.dropout(feature) if feature.shape[1] > WIDE else feature, x)
        return self.dropout(x)


@register_model
def refinenet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    channels: tuple[int, ...] = (512, 256, 256, 256),
    pool_blocks: int = 4,
    dropout: float = 0.5,
    align_corners: bool = False,
) -> SegmentationModel:
    """RefineNet on any backbone of four or more maps; the paper's are resnet50, resnet101, resnet152.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: name of the backbone.
        channels: widths of the blocks, coarsest first; missing ones repeat the last.
        pool_blocks: blocks of each chained residual pooling.
        dropout: rate of dropout on wide maps of the backbone and before the classifier.
        align_corners: how maps and logits are enlarged.
    """
    encoder = create_backbone(backbone, bands=bands, stages=LEVELS)
    network = SegmentationModel(
        encoder,
        RefineNetDecoder(
            encoder.channels,
            channels,
            pool_blocks=pool_blocks,
            dropout=dropout,
            align_corners=align_corners,
        ),
        bands=bands,
        num_classes=num_classes,
        classifier_kernel=3,
        align_corners=align_corners,
    )
    for layer in network.decoder.modules():
        if isinstance(layer, nn.Conv2d):
            # As the authors: without norms the usual start would double the variance in each of 20 units.
            nn.init.normal_(layer.weight, std=0.01)
    return network


RECIPE = {
    # The cascade has no norms: at 1e-3 the loss rises a hundredfold at first.
    "plain": {"optimizer": "adam", "lr": 1e-4},
    # The authors' demo_refinenet_train.m and gen_net_opts_model_type1.m: PASCAL VOC 2012, one crop of 400x400
    # at a time, 5e-4 and a tenth of it on the pretrained ResNet, divided by ten once the score stalls.
    "paper": {
        "optimizer": "sgd",
        "lr": 5e-5,
        "head_lr_factor": 10.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "scheduler": "step",
        "step_ratio": 0.1,
        "batch_size": 1,
        "loss": "ce",
    },
}
