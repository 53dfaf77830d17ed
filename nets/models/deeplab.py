"""DeepLab v3 and v3+: parallel dilated convolutions see the scene at several scales without losing resolution.

Papers: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (v3), 2017,
https://arxiv.org/abs/1706.05587; Chen et al., "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation" (v3+), ECCV 2018, https://arxiv.org/abs/1802.02611

Deviations: the auxiliary FCN head on the last stage but one, which later work trains with, is optional; Xception
is timm's `xception65`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate, create_backbone
from nets.layers.conv import ConvNormAct, SeparableConv
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Dilation of the three 3x3 branches at output stride 16 (v3, section 4.1); doubled at 8, halved at 32.
RATES_AT_16 = (6, 12, 18)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3 and pooled branches, joined by 1x1 (v3, section 3.3).

    `separable` makes the dilated branches depthwise separable (v3+, section 3.1).
    """

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...], *, separable: bool):
        super().__init__()
        conv = SeparableConv if separable else ConvNormAct
        self.branches = nn.ModuleList(
            [
                ConvNormAct(in_channels, out_channels, 1),
                *(conv(in_channels, out_channels, 3, dilation=rate) for rate in rates),
            ]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, out_channels, 1))
        self.join = ConvNormAct((len(rates) + 2) * out_channels, out_channels, 1)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        scales = [branch(x) for branch in self.branches]
        scales.append(resize(self.pooled(x), x.shape[-2:]))  # (B, D, 1, 1) -> (B, D, h, w)
        return self.join(torch.cat(scales, dim=1))


class V3Decoder(nn.Module):
    """ASPP on the deepest map."""

    def __init__(self, in_channels: list[int], channels: int, rates: tuple[int, ...]):
        super().__init__()
        self.aspp = ASPP(in_channels[-1], channels, rates, separable=False)
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the last of the (B, C_i, h_i, w_i) to (B, D, h, w)."""
        return self.aspp(features[-1])


class V3PlusDecoder(nn.Module):
    """ASPP on the deepest map, joined with the stride-4 map by separable convolutions (v3+, section 3.1)."""

    def __init__(self, in_channels: list[int], channels: int, rates: tuple[int, ...], low_channels: int):
        super().__init__()
        self.aspp = ASPP(in_channels[-1], channels, rates, separable=True)
        self.low = ConvNormAct(in_channels[0], low_channels, 1)
        self.refine = nn.Sequential(
            SeparableConv(channels + low_channels, channels), SeparableConv(channels, channels)
        )
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        low = self.low(features[0])  # (B, 48, H / 4, W / 4)
        deep = resize(self.aspp(features[-1]), low.shape[-2:])
        return self.refine(torch.cat([deep, low], dim=1))


@register_model
def deeplab(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    version: Literal["v3plus", "v3"] = "v3plus",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 256,
    low_channels: int = 48,
    dropout: float = 0.1,
    aux: bool = False,
) -> SegmentationModel:
    """DeepLab on any backbone; output stride 16 where the backbone can be dilated, else its own."""
    if output_stride is None:
        output_stride = 16 if can_dilate(backbone) else 32
    encoder = create_backbone(backbone, bands=bands, stages=4, output_stride=output_stride)
    rates = tuple(rate * 16 // output_stride for rate in RATES_AT_16)
    if version == "v3":
        decoder = V3Decoder(encoder.channels, channels, rates)
    else:
        decoder = V3PlusDecoder(encoder.channels, channels, rates, low_channels)
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        aux_channels=256 if aux else 0,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/deeplabv3plus: ADE20K, total batch 16.
    "paper": {
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 16,
        "aux_weight": 0.4,
        "model_options": {"aux": True},
    },
}
