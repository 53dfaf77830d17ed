"""ANN: non-local attention to a few pooled pixels, first across two stages, then within their fusion.

Paper: Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019,
https://arxiv.org/abs/1908.07678

Deviations: none in the default network. Where queries are pooled (`query_scales` above 1), the result is
enlarged bilinearly.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.grid import grid_mean
from nets.layers.init import start_at_zero
from nets.layers.pixel_attention import PixelAttention
from nets.layers.resize import resize
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class PooledPixels(nn.Module):
    """Averages over grids of several sizes, in one row (paper, section 3.2)."""

    def __init__(self, scales: Sequence[int]):
        super().__init__()
        self.scales = tuple(scales)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, N), N cells of all grids."""
        return torch.cat([grid_mean(x, scale).flatten(2) for scale in self.scales], dim=2)


class AsymmetricAttention(nn.Module):
    """Pixels of one map attend to the pooled pixels of another; the result is joined with them.

    Args:
        in_channels: channels of the map that asks, and of the attention's result.
        source_channels: channels of the map that is pooled.
        key_channels: width inside the attention.
        channels: width of the result.
        scales: cells along a side of each grid.
        query_scales: sides of the windows over which queries are pooled, one attention for each.
        share: queries are made as keys are.
        act: ReLU at the end.
        align_corners: how a result of pooled queries is enlarged.
    """

    def __init__(
        self,
        in_channels: int,
        source_channels: int,
        key_channels: int,
        channels: int,
        *,
        scales: Sequence[int],
        query_scales: Sequence[int],
        share: bool,
        act: bool,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.attentions = nn.ModuleList(
            PixelAttention(
                in_channels,
                source_channels,
                key_channels,
                key_channels,
                share=share,
                pool=PooledPixels(scales),
                pool_query=nn.MaxPool2d(query_scale, ceil_mode=True) if query_scale > 1 else None,
            )
            for query_scale in query_scales
        )
        self.project = nn.ModuleList(
            start_at_zero(nn.Conv2d(key_channels, in_channels, 1)) for _ in query_scales
        )
        self.join = ConvNormAct(2 * in_channels, channels, 1, act=act)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C', h', w') to (B, channels, h, w)."""
        contexts = [
            resize(project(attention(x, source)), x.shape[-2:], align_corners=self.align_corners)
            for attention, project in zip(self.attentions, self.project, strict=True)
        ]
        return self.join(torch.cat([torch.stack(contexts).sum(0), x], dim=1))


class ANNDecoder(nn.Module):
    """Fusion of two stages, then context within the result (paper, figure 3).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        key_channels: width inside the attentions.
        index: the map that is pooled and the map that asks.
        dropout: rate of the channel dropout between the two attentions.
        norm_eps: epsilon of the batch norms.
        attention: further arguments of `AsymmetricAttention`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        key_channels: int,
        *,
        index: Sequence[int],
        dropout: float,
        norm_eps: float,
        **attention: object,
    ):
        super().__init__()
        self.low, self.high = index
        low, high = in_channels[self.low], in_channels[self.high]
        self.fusion = AsymmetricAttention(high, low, key_channels, high, share=False, act=False, **attention)
        self.dropout = nn.Dropout2d(dropout)
        self.reduce = ConvNormAct(high, channels)
        self.context = AsymmetricAttention(
            channels, channels, key_channels, channels, share=True, act=True, **attention
        )
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the map that asks."""
        fused = self.fusion(features[self.high], features[self.low])
        x = self.reduce(self.dropout(fused))
        return self.context(x, x)


@register_model
def ann(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    key_channels: int = 256,
    pool_scales: tuple[int, ...] = (1, 3, 6, 8),
    query_scales: tuple[int, ...] = (1,),
    in_index: tuple[int, ...] = (-2, -1),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """ANN on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = ANNDecoder(
        encoder.channels,
        channels,
        key_channels,
        index=in_index,
        dropout=dropout,
        norm_eps=norm_eps,
        scales=pool_scales,
        query_scales=query_scales,
        align_corners=align_corners,
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
    # MMSegmentation configs/ann.
    "paper": SGD_POLY | WITH_AUX,
}
