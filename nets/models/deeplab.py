"""DeepLab v3 and v3+: parallel dilated convolutions see several scales without losing resolution.

Papers: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (v3), 2017,
https://arxiv.org/abs/1706.05587; Chen et al., "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation" (v3+), ECCV 2018, https://arxiv.org/abs/1802.02611

Deviations: the auxiliary FCN head on the last stage but one, which later work trains with, is optional;
Xception is timm's `xception65`. Options give MMSegmentation's networks (512 channels, branches joined by
3x3), torchvision's and segmentation_models.pytorch's.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate
from nets.backbones.configured import create_configured_backbone
from nets.decoders.aspp import ASPP, V3Decoder
from nets.decoders.fcn import count_stages, create_aux_heads
from nets.layers.conv import ConvNormAct, SeparableConv, set_norm_eps
from nets.layers.resize import resize
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Dilation of the three 3x3 branches at output stride 16 (v3, section 4.1); doubled at 8, halved at 32.
RATES_AT_16 = (6, 12, 18)


class V3PlusDecoder(nn.Module):
    """ASPP on a deep map, joined with a fine map by separable convolutions (v3+, section 3.1).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        dilations: of the ASPP's branches.
        low_channels: width that the fine map is reduced to; 0 leaves it out.
        index, low_index: the deep and the fine map.
        aspp_convs: separable convolutions between the ASPP and the join.
        num_convs: separable convolutions behind the join.
        align_corners: how maps are enlarged.
        norm_between: norm and activation between the two parts of separable convolutions.
        norm_eps: epsilon of the batch norms.
        aspp: further arguments of `ASPP`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        dilations: Sequence[int],
        *,
        low_channels: int = 48,
        index: int = -1,
        low_index: int = 0,
        aspp_convs: int = 0,
        num_convs: int = 2,
        align_corners: bool = False,
        norm_between: bool = True,
        norm_eps: float = 1e-5,
        **aspp: object,
    ):
        super().__init__()
        self.index, self.low_index, self.align_corners = index, low_index, align_corners
        self.aspp = ASPP(
            in_channels[index],
            channels,
            dilations,
            separable=True,
            align_corners=align_corners,
            norm_between=norm_between,
            **aspp,
        )
        self.deepen = nn.Sequential(
            *(SeparableConv(channels, channels, norm_between=norm_between) for _ in range(aspp_convs))
        )
        self.low = ConvNormAct(in_channels[low_index], low_channels, 1) if low_channels else None
        widths = [channels + low_channels] + [channels] * (num_convs - 1)
        self.refine = nn.Sequential(
            *(SeparableConv(width, channels, norm_between=norm_between) for width in widths)
        )
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the fine map."""
        deep = self.deepen(self.aspp(features[self.index]))
        if self.low is not None:
            low = self.low(features[self.low_index])  # (B, 48, H / 4, W / 4)
            deep = resize(deep, low.shape[-2:], align_corners=self.align_corners)
            deep = torch.cat([deep, low], dim=1)
        return self.refine(deep)


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
    dilations: tuple[int, ...] | None = None,
    join_kernel: int = 1,
    join_dropout: float = 0.0,
    aspp_convs: int = 0,
    num_convs: int | None = None,
    norm_between: bool = True,
    in_index: int = -1,
    low_index: int = 0,
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """DeepLab on any backbone; output stride 16 where the backbone can be dilated, else its own.

    `dilations` are those of the ASPP's branches (1 is a 1x1 convolution); by default they follow the output
    stride.
    """
    if output_stride is None and not backbone_options:
        output_stride = 16 if can_dilate(backbone) else 32
    # v3+ joins the first of four maps; v3 reads the last ones alone.
    read = count_stages((in_index,), aux=aux, aux_heads=aux_heads) if version == "v3" else None
    encoder = create_configured_backbone(
        backbone,
        bands=bands,
        stages=read or 4,
        output_stride=output_stride,
        options=backbone_options,
    )
    if dilations is None:
        dilations = (1, *(max(rate * 16 // encoder.strides[in_index], 2) for rate in RATES_AT_16))
    shared = {
        "index": in_index,
        "join_kernel": join_kernel,
        "join_dropout": join_dropout,
        "align_corners": align_corners,
        "norm_eps": norm_eps,
    }
    if version == "v3":
        decoder = V3Decoder(encoder.channels, channels, dilations, num_convs=num_convs or 0, **shared)
    else:
        decoder = V3PlusDecoder(
            encoder.channels,
            channels,
            dilations,
            low_channels=low_channels,
            low_index=low_index,
            aspp_convs=aspp_convs,
            num_convs=2 if num_convs is None else num_convs,
            norm_between=norm_between,
            **shared,
        )
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/deeplabv3plus: ADE20K, total batch 16.
    "paper": SGD_POLY | WITH_AUX,
}
