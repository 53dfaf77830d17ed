"""DMNet: the image's own content makes the filters, of several sizes, that it is seen through.

Paper: He, Deng, Qiao, "Dynamic Multi-scale Filters for Semantic Segmentation", ICCV 2019,
https://openaccess.thecvf.com/content_ICCV_2019/html/He_Dynamic_Multi-Scale_Filters_for_Semantic_Segmentation_ICCV_2019_paper.html

Deviations: the 1x1 convolution behind the filters is optional (`fusion`) and left out by default, as in
MMSegmentation.
"""

import functools
import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.context import BranchDecoder
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels
from nets.layers.conv import ConvNormAct
from nets.layers.grid import grid_mean
from nets.layers.margins import is_tracing
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class DynamicFilter(nn.Module):
    """Filter each channel with a kernel that is pooled from the map itself (paper, section 3.2).

    Args:
        in_channels: channels of the map.
        channels: width.
        size: side of the kernels in pixels.
        fusion: 1x1 convolution behind the filters.
    """

    def __init__(self, in_channels: int, channels: int, size: int, *, fusion: bool):
        super().__init__()
        self.size = size
        self.kernel = nn.Conv2d(in_channels, channels, 1)
        self.reduce = ConvNormAct(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.fuse = ConvNormAct(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        kernels = self.kernel(grid_mean(x, self.size))  # (B, D, s, s)
        reduced = self.reduce(x)
        x = F.relu(self.norm(filter_each(reduced, kernels)))
        return x if self.fuse is None else self.fuse(x)


def filter_each(x: Tensor, kernels: Tensor) -> Tensor:
    """Map (B, D, h, w) and a kernel for each of its planes (B, D, s, s) to the filtered (B, D, h, w)."""
    (batch, width, height, columns), side = x.shape, kernels.shape[-1]
    # A kernel of even size has its centre right of and below its middle.
    after, before = (side - 1) // 2, side // 2
    padded = F.pad(x, (before, after, before, after))  # (B, D, h + s - 1, w + s - 1)
    if is_tracing():  # a convolution's number of groups is fixed in a trace, and here it has the batch in it
        places = itertools.product(range(side), repeat=2)
        parts = (
            padded[..., i : i + height, j : j + columns] * kernels[..., i : i + 1, j : j + 1]
            for i, j in places
        )
        return functools.reduce(torch.add, parts)
    kernels = kernels.flatten(0, 1).unsqueeze(1)  # (B D, 1, s, s)
    filtered = F.conv2d(padded.flatten(0, 1).unsqueeze(0), kernels, groups=batch * width)  # (1, B D, h, w)
    return filtered.reshape(x.shape)


@register_model
def dmnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    filter_sizes: tuple[int, ...] = (1, 3, 5, 7),
    fusion: bool = False,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """DMNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    width = joined_channels(encoder.channels, in_index)
    branches = [DynamicFilter(width, channels, size, fusion=fusion) for size in filter_sizes]
    decoder = BranchDecoder(
        encoder.channels,
        channels,
        branches,
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
    # MMSegmentation configs/dmnet.
    "paper": SGD_POLY | WITH_AUX,
}
