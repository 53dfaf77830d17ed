"""Two paths: a spatial one that keeps details and a context path that sees far, fused by attention.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV 2018,
https://arxiv.org/abs/1808.00897
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.fcn import FCNHead
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.segmentation_model import SegmentationModel

Enlarge = Literal["nearest", "bilinear"]


class AttentionRefinement(nn.Module):
    """Convolution whose channels are weighed by what the whole image shows (paper, figure 2b)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNormAct(channels, channels, 1, act=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        x = self.conv(x)
        return x * self.gate(x)


class FeatureFusion(nn.Module):
    """Both paths joined, and added to themselves as weighed by the whole image (paper, figure 2c).

    Args:
        in_channels: channels of both paths together.
        channels: width.
        reduction: the weights are made through this share of the width.
        norm_gate: MMSegmentation's BiSeNet makes them by one convolution with norm and ReLU instead of two
            convolutions.
    """

    def __init__(self, in_channels: int, channels: int, *, reduction: int = 1, norm_gate: bool = False):
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels, 1)
        self.out_channels = channels
        hidden = max(channels // reduction, 1)
        if norm_gate:
            convs = [ConvNormAct(channels, channels, 1)]
        else:
            convs = [
                ConvNormAct(channels, hidden, 1, norm=False, bias=False),
                ConvNormAct(hidden, channels, 1, norm=False, act=False, bias=False),
            ]
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), *convs, nn.Sigmoid())

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C', h, w) to (B, D, h, w)."""
        x = self.conv(torch.cat([spatial, context], dim=1))
        return x + x * self.gate(x)


class ContextPath(nn.Module):
    """The two deepest maps, refined and enlarged, from the whole image's mean upwards.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        enlarge: how a map gets the next finer one's size.
        align_corners: of "bilinear".
        norm_eps: epsilon of the batch norms outside of the refinements.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        enlarge: Enlarge = "nearest",
        align_corners: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.enlarge, self.align_corners = enlarge, align_corners
        deepest, middle = in_channels[-1], in_channels[-2]
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(deepest, channels, 1))
        self.convs = nn.ModuleList(ConvNormAct(channels, channels) for _ in range(2))
        set_norm_eps(self, norm_eps)
        self.refine = nn.ModuleList(AttentionRefinement(width, channels) for width in (deepest, middle))
        self.out_channels = channels
        init_weights(self)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) at the last but one's size and (B, D, *size)."""
        x, maps = self.pooled(features[-1]), []
        sizes = (features[-2].shape[-2:], size)
        parts = zip(self.refine, self.convs, reversed(features[-2:]), sizes, strict=True)
        for refine, conv, deep, wanted in parts:
            x = refine(deep) + x
            if self.enlarge == "nearest":
                x = F.interpolate(x, size=wanted, mode="nearest")
            else:
                x = resize(x, wanted, align_corners=self.align_corners)
            x = conv(x)
            maps.append(x)
        return maps[0], maps[1]


class BilateralModel(SegmentationModel):
    """`SegmentationModel` on the fusion of a spatial path and a context path.

    Decoder and auxiliary heads read four maps: the fusion, the context at its size, the context at half of
    it, and the spatial map. Training adds "detail", logits (B, D, H, W) of what the spatial map shows, where
    there is a head for it.

    Args:
        backbone: of the context path.
        decoder: as for `SegmentationModel`.
        context: makes of the backbone's maps those of the context path.
        fusion: of both paths.
        spatial: makes the spatial map of the image; None takes the backbone's third deepest map.
        detail_head: maps the four maps to the logits "detail".
        network: further arguments of `SegmentationModel`.
    """

    enlarged = ("detail",)

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        context: ContextPath,
        fusion: FeatureFusion,
        spatial: nn.Module | None = None,
        detail_head: FCNHead | None = None,
        **network: object,
    ):
        super().__init__(backbone, decoder, **network)
        self.spatial, self.context, self.fusion = spatial, context, fusion
        self.detail_head = detail_head
        init_weights(fusion)
        if spatial is not None:
            init_weights(spatial)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map normalised images (B, C, H, W) to fusion, context, coarse context and spatial map."""
        features = self.backbone(x)
        spatial = features[-3] if self.spatial is None else self.spatial(x)
        coarse, context = self.context(features, spatial.shape[-2:])
        return [self.fusion(spatial, context), context, coarse, spatial]

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the four maps to {"logits": (B, K, h, w)}; training adds "detail" (B, D, h, w)."""
        outputs = super().decode(features)
        if self.training and self.detail_head is not None:
            outputs["detail"] = self.detail_head(features)
        return outputs
