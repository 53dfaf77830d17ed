"""PAN: a pyramid of large convolutions weighs the deepest pixels, deep maps weigh the finer ones' channels.

Paper: Li, Xiong, An, Wang, "Pyramid Attention Network for Semantic Segmentation", BMVC 2018,
https://arxiv.org/abs/1805.10180

Versions: "paper" has strided convolutions in the pyramid, of the decoder's width, and ReLU on the weights of
channels (section 3.2); "smp" is that of segmentation_models.pytorch: max pooling, one weight per pixel,
sigmoid, biases, aligned corners, 32 channels.

Deviations: the paper states no width; it is 256 here. The ResNet is timm's with its 7x7 stem (the paper's has
three 3x3 convolutions). Where a map is too small to be halved again, its border is repeated.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate
from nets.backbones.configured import create_configured_backbone
from nets.decoders.joining import Interpolation
from nets.layers.conv import ConvNormAct
from nets.layers.margins import at_least, pad
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

LEVELS = 4
# Kernels of the pyramid, finest level first.
KERNELS = (7, 5, 3)
WIDTHS = {"paper": 256, "smp": 32}


class Halving(nn.Module):
    """Halve the resolution: a strided convolution, or max pooling before an unstrided one.

    Args:
        in_channels: channels of the map.
        channels: width.
        kernel: side of the convolution's kernel in pixels.
        pool: whether it pools.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, *, pool: bool):
        super().__init__()
        self.pool = pool
        self.conv = ConvNormAct(in_channels, channels, kernel, stride=1 if pool else 2, bias=pool)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / 2, w / 2)."""
        # A trace for export holds where no side becomes 1, which it would treat in a special way.
        least = 2 if self.pool else 3
        x = pad(x, tuple(at_least(side, least) for side in x.shape[-2:]), replicate=True)
        return self.conv(F.max_pool2d(x, 2) if self.pool else x)


class FeaturePyramidAttention(nn.Module):
    """Weigh pixels by what three coarser levels see, and add the mean of all (paper, figure 3b).

    Args:
        in_channels: channels of the map.
        channels: width.
        pyramid_channels: width of the levels; 1 is one weight for all channels.
        pool: how resolutions are halved, see `Halving`; its convolutions then have a bias.
        align_corners: how the levels are enlarged.
    """

    def __init__(
        self, in_channels: int, channels: int, pyramid_channels: int, *, pool: bool, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, channels, 1, bias=pool))
        self.project = ConvNormAct(in_channels, channels, 1, bias=pool)
        widths = (in_channels, pyramid_channels, pyramid_channels)
        self.halve = nn.ModuleList(
            Halving(width, pyramid_channels, kernel, pool=pool)
            for width, kernel in zip(widths, KERNELS, strict=True)
        )
        self.convs = nn.ModuleList(
            ConvNormAct(pyramid_channels, pyramid_channels, kernel, bias=pool) for kernel in KERNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        sizes, level, levels = [x.shape[-2:]], x, []
        for halve, conv in zip(self.halve, self.convs, strict=True):
            level = halve(level)
            levels.append(conv(level))
            sizes.append(level.shape[-2:])
        weights = self._to(levels.pop(), sizes[-2])
        for size in sizes[-3::-1]:
            weights = self._to(weights + levels.pop(), size)
        return weights * self.project(x) + self._to(self.mean(x), sizes[0])

    def _to(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(x, size, align_corners=self.align_corners)


class GlobalAttentionUpsample(nn.Module):
    """The coarse map's mean weighs the finer one's channels; the coarse map is added (paper, figure 4).

    Args:
        in_channels: channels of the finer map.
        channels: width.
        gate: what makes weights of the mean, "relu" or "sigmoid".
        bias: whether convolutions have one.
        align_corners: how the coarse map is enlarged.
        enlarge: how, where that is not bilinear.
    """

    def __init__(
        self, in_channels: int, channels: int, *, gate: str, bias: bool, align_corners: bool, enlarge: str
    ):
        super().__init__()
        self.align_corners, self.mode = align_corners, enlarge
        self.reduce = ConvNormAct(in_channels, channels, 3, bias=bias)
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvNormAct(channels, channels, 1, act=False, bias=bias),
            nn.ReLU(inplace=True) if gate == "relu" else nn.Sigmoid(),
        )

    def forward(self, coarse: Tensor, finer: Tensor) -> Tensor:
        """Map (B, D, h, w) and (B, C, H, W) to (B, D, H, W)."""
        size = finer.shape[-2:]
        if self.mode == "bilinear":
            enlarged = resize(coarse, size, align_corners=self.align_corners)
        else:
            enlarged = F.interpolate(coarse, size=size, mode=self.mode)
        return enlarged + self.reduce(finer) * self.weights(coarse)


class PANDecoder(nn.Module):
    """Pyramid attention on the deepest map, then an attentive enlargement to each finer one.

    Args:
        in_channels: channels of the maps, finest first.
        channels: width.
        version: see above.
        enlarge: how a map is enlarged to a finer one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        version: Literal["paper", "smp"],
        enlarge: str,
    ):
        super().__init__()
        smp = version == "smp"
        self.attend = FeaturePyramidAttention(
            in_channels[-1], channels, 1 if smp else channels, pool=smp, align_corners=smp
        )
        form = {"gate": "sigmoid" if smp else "relu", "bias": smp, "align_corners": smp, "enlarge": enlarge}
        self.blocks = nn.ModuleList(
            GlobalAttentionUpsample(width, channels, **form) for width in in_channels[-2::-1]
        )
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        x = self.attend(features[-1])
        for block, feature in zip(self.blocks, features[-2::-1], strict=True):
            x = block(x, feature)
        return x


@register_model
def pan(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet101",
    version: Literal["paper", "smp"] = "paper",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int | None = None,
    enlarge: Interpolation = "bilinear",
    dropout: float = 0.0,
    align_corners: bool | None = None,
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """PAN on any backbone; output stride 16 where the backbone can be dilated, else its own.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: any catalogue backbone of four or more maps; the paper's is resnet101.
        version: the paper's network or that of segmentation_models.pytorch.
        output_stride: of the deepest map in pixels.
        channels: width of the decoder; None is 256, of "smp" 32.
        enlarge: how a map is enlarged to a finer one.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are enlarged; None is for "smp" alone.
        backbone_options: arguments of the backbone's class instead of `output_stride`.
    """
    if output_stride is None and not backbone_options and can_dilate(backbone):
        output_stride = 16
    encoder = create_configured_backbone(
        backbone, bands=bands, stages=LEVELS, output_stride=output_stride, options=backbone_options
    )
    decoder = PANDecoder(encoder.channels, channels or WIDTHS[version], version=version, enlarge=enlarge)
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        classifier_kernel=3,
        align_corners=version == "smp" if align_corners is None else align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # Paper, section 4.1: PASCAL VOC 2012, batch 16.
    "paper": SGD_POLY | {"lr": 4e-3, "weight_decay": 1e-4, "min_lr": 0.0},
}
