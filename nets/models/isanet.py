"""ISANet: attention first among far pixels, then among near ones, instead of among all pairs at once.

Paper: Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019,
https://arxiv.org/abs/1907.12273

Deviations: maps that do not divide into groups are padded with zeros on all sides, and the zeros take part in
the attention, as in MMSegmentation.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels, select_features
from nets.errors import check_sides
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.margins import crop, pad, share
from nets.layers.pixel_attention import PixelAttention
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class GroupAttention(nn.Module):
    """Attention among the pixels of one map, then a 1x1 convolution."""

    def __init__(self, channels: int, key_channels: int):
        super().__init__()
        self.attention = PixelAttention(channels, channels, key_channels, channels, num_convs=2)
        self.project = ConvNormAct(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.project(self.attention(x, x))


class InterlacedAttention(nn.Module):
    """Attention among pixels that lie a group apart, then among those of a group (paper, section 3.2).

    Args:
        channels: channels of the map.
        key_channels: width of queries and keys.
        group_size: rows and columns of a group.
    """

    def __init__(self, channels: int, key_channels: int, group_size: Sequence[int]):
        super().__init__()
        self.group_size = tuple(group_size)
        self.far = GroupAttention(channels, key_channels)
        self.near = GroupAttention(channels, key_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        (batch, width, *size), (rows, columns) = x.shape, self.group_size
        down, across = share(size[0], rows), share(size[1], columns)  # groups
        start = ((down * rows - size[0]) // 2, (across * columns - size[1]) // 2)
        x = pad(x, (down * rows, across * columns), start)
        x = x.reshape(batch, width, down, rows, across, columns).permute(0, 3, 5, 1, 2, 4)
        x = self.far(x.reshape(-1, width, down, across))  # (B rows columns, C, down, across)
        x = x.reshape(batch, rows, columns, width, down, across).permute(0, 4, 5, 3, 1, 2)
        x = self.near(x.reshape(-1, width, rows, columns))  # (B down across, C, rows, columns)
        x = x.reshape(batch, down, across, width, rows, columns).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(batch, width, down * rows, across * columns)
        return crop(x, size, start)


class ISADecoder(nn.Module):
    """Convolution -> interlaced attention, joined with its input.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        key_channels: width of queries and keys.
        group_size: rows and columns of a group.
        index: maps that are used; several are resized to the first of them and concatenated.
        align_corners: how several maps are resized.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        key_channels: int,
        group_size: Sequence[int],
        *,
        index: Sequence[int],
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.index, self.align_corners = tuple(index), align_corners
        self.enter = ConvNormAct(joined_channels(in_channels, index), channels)
        self.context = InterlacedAttention(channels, key_channels, group_size)
        self.join = ConvNormAct(2 * channels, channels, 1)
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        x = self.enter(select_features(features, self.index, align_corners=self.align_corners))
        return self.join(torch.cat([self.context(x), x], dim=1))


@register_model
def isanet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    key_channels: int = 256,
    group_size: tuple[int, ...] = (8, 8),
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """ISANet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    check_sides("isanet", "group_size", group_size)
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = ISADecoder(
        encoder.channels,
        channels,
        key_channels,
        group_size,
        index=in_index,
        align_corners=align_corners,
        norm_eps=norm_eps,
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
    # MMSegmentation configs/isanet.
    "paper": SGD_POLY | WITH_AUX,
}
