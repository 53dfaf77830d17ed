"""BiSeNet v2's branches: wide and shallow for details, narrow and deep for meaning; each guides the other.

Paper: Yu et al., "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation",
IJCV 2021, https://arxiv.org/abs/2004.02147, figures 4 to 6 and table 1.

Deviations: none. The paper's figures have no ReLU behind the depthwise convolution of a gather-and-expansion
layer and behind the aggregation, and a plain convolution at the end of the context embedding; MMSegmentation
has norms and ReLUs there (`extra_activations`), and biases in two convolutions (`aggregation_bias`).
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, SeparableConv
from nets.layers.init import init_weights
from nets.layers.resize import resize

# Gather-and-expansion layers of the stages behind the stem.
LAYERS = (2, 2, 4)


class Stem(nn.Module):
    """Convolutions and a maximum side by side (figure 5a)."""

    def __init__(self, bands: int, channels: int):
        super().__init__()
        self.first = ConvNormAct(bands, channels, stride=2)
        self.convs = nn.Sequential(
            ConvNormAct(channels, channels // 2, 1), ConvNormAct(channels // 2, channels, stride=2)
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.fuse = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / 4, W / 4)."""
        x = self.first(x)
        return self.fuse(torch.cat([self.convs(x), self.pool(x)], dim=1))


class GatherExpansion(nn.Module):
    """Inverted bottleneck that starts with a full convolution (figure 5b, c).

    Args:
        in_channels: channels of the input.
        channels: channels of the result.
        expansion: how much wider it is inside.
        stride: 1 or 2.
        act_inside: ReLU behind the last depthwise convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, expansion: int, stride: int, act_inside: bool):
        super().__init__()
        width = in_channels * expansion
        self.conv = ConvNormAct(in_channels, in_channels)
        last = {"groups": width if stride == 2 else in_channels, "act": act_inside}
        if stride == 2:
            widen = ConvNormAct(in_channels, width, stride=2, groups=in_channels, act=False)
            self.depthwise = nn.Sequential(widen, ConvNormAct(width, width, **last))
            self.shortcut = SeparableConv(in_channels, channels, stride=2, act_between=False, act=False)
        else:
            self.depthwise = nn.Sequential(ConvNormAct(in_channels, width, **last))
            self.shortcut = nn.Identity()
        self.project = ConvNormAct(width, channels, 1, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / stride, w / stride)."""
        return self.act(self.project(self.depthwise(self.conv(x))) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The whole image's mean, added to every pixel (figure 5d)."""

    def __init__(self, channels: int, *, extra_activations: bool):
        super().__init__()
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(channels), ConvNormAct(channels, channels, 1)
        )
        self.last = ConvNormAct(channels, channels, norm=extra_activations, act=extra_activations)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.last(x + self.pooled(x))


class Aggregation(nn.Module):
    """Each branch is weighed by the other, at both resolutions (figure 6).

    Args:
        channels: of both branches.
        align_corners: how maps are enlarged.
        act: ReLU at the end.
        bias: of the pointwise convolutions.
    """

    def __init__(self, channels: int, *, align_corners: bool, act: bool, bias: bool):
        super().__init__()
        self.align_corners = align_corners

        def separable() -> nn.Sequential:
            conv = SeparableConv(channels, channels, act_between=False, norm=False, act=False)
            if not bias:
                conv.pointwise.conv.bias = None
            return conv

        self.detail, self.semantic = separable(), separable()
        self.detail_down = nn.Sequential(
            ConvNormAct(channels, channels, stride=2, act=False), nn.AvgPool2d(3, 2, padding=1)
        )
        self.semantic_up = ConvNormAct(channels, channels, act=False)
        self.fuse = ConvNormAct(channels, channels, act=act)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Map (B, C, 4h, 4w) and (B, C, h, w) to (B, C, 4h, 4w)."""
        size = detail.shape[-2:]
        gate = resize(self.semantic_up(semantic), size, align_corners=self.align_corners).sigmoid()
        fine = self.detail(detail) * gate
        coarse = self.detail_down(detail) * self.semantic(semantic).sigmoid()
        return self.fuse(fine + resize(coarse, size, align_corners=self.align_corners))


class BiSeNetV2(nn.Module):
    """Both branches and their aggregation.

    Args:
        bands: bands of an image.
        detail_channels: widths of the three stages of the detail branch.
        semantic_channels: widths of the four stages of the semantic branch; the last is the detail branch's.
        expansion: of the gather-and-expansion layers.
        align_corners: how the aggregation enlarges maps.
        extra_activations: see above.
        aggregation_bias: see above.

    Attributes:
        channels, strides: of the aggregated map and of the semantic branch's stages.
    """

    def __init__(
        self,
        *,
        bands: int,
        detail_channels: Sequence[int],
        semantic_channels: Sequence[int],
        expansion: int,
        align_corners: bool,
        extra_activations: bool,
        aggregation_bias: bool,
    ):
        super().__init__()
        self.name = "bisenetv2"
        self.detail = nn.Sequential()
        for i, (before, after) in enumerate(zip([bands, *detail_channels], detail_channels, strict=False)):
            convs = [ConvNormAct(before, after, stride=2), ConvNormAct(after, after)]
            self.detail.append(nn.Sequential(*convs, *([ConvNormAct(after, after)] if i else [])))
        self.semantic = nn.ModuleList([Stem(bands, semantic_channels[0])])
        shape = {"expansion": expansion, "act_inside": extra_activations}
        widths = zip(semantic_channels, semantic_channels[1:], LAYERS, strict=False)
        for before, after, layers in widths:
            first = GatherExpansion(before, after, stride=2, **shape)
            rest = [GatherExpansion(after, after, stride=1, **shape) for _ in range(layers - 1)]
            self.semantic.append(nn.Sequential(first, *rest))
        self.embed = ContextEmbedding(semantic_channels[-1], extra_activations=extra_activations)
        self.aggregate = Aggregation(
            detail_channels[-1],
            align_corners=align_corners,
            act=extra_activations,
            bias=aggregation_bias,
        )
        self.channels = [detail_channels[-1], *semantic_channels]
        self.strides = [8, 4, 8, 16, 32]
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the aggregated map at stride 8 and the stages' at 4, 8, 16 and 32."""
        stages = list(accumulate(self.semantic, lambda previous, stage: stage(previous), initial=x))[1:]
        return [self.aggregate(self.detail(x), self.embed(stages[-1])), *stages]
