"""APCNet: each pixel weighs the cells of several grids by what it and the whole scene look like.

Paper: He et al., "Adaptive Pyramid Context Network for Semantic Segmentation", CVPR 2019,
https://openaccess.thecvf.com/content_CVPR_2019/html/He_Adaptive_Pyramid_Context_Network_for_Semantic_Segmentation_CVPR_2019_paper.html

Deviations: none known; the 1x1 convolution behind each context module can be left out (`fusion`), as in
MMSegmentation.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.context import BranchDecoder
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels
from nets.layers.conv import ConvNormAct
from nets.layers.grid import grid_mean
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class AdaptiveContext(nn.Module):
    """Mean of a grid's cells that each pixel weighs for itself (paper, section 3.2).

    Args:
        in_channels: channels of the map.
        channels: width.
        scale: cells along a side of the grid.
        fusion: 1x1 convolution at the end.
    """

    def __init__(self, in_channels: int, channels: int, scale: int, *, fusion: bool):
        super().__init__()
        self.scale = scale
        self.cells = ConvNormAct(in_channels, channels, 1)
        self.pixels = ConvNormAct(in_channels, channels, 1)
        self.scene = ConvNormAct(channels, channels, 1)
        self.affinity = nn.Conv2d(channels, scale**2, 1)
        self.residual = ConvNormAct(channels, channels, 1)
        self.fuse = ConvNormAct(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        cells = self.cells(grid_mean(x, self.scale)).flatten(2)  # (B, D, S)
        pixels = self.pixels(x)
        scene = self.scene(grid_mean(pixels, 1))  # (B, D, 1, 1)
        affinity = self.affinity(pixels + scene).sigmoid().flatten(2)  # (B, S, h w)
        context = (cells @ affinity).unflatten(2, x.shape[-2:])
        context = F.relu(self.residual(context) + pixels)
        return context if self.fuse is None else self.fuse(context)


@register_model
def apcnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    pool_scales: tuple[int, ...] = (1, 2, 3, 6),
    fusion: bool = True,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """APCNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    width = joined_channels(encoder.channels, in_index)
    branches = [AdaptiveContext(width, channels, scale, fusion=fusion) for scale in pool_scales]
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
    # MMSegmentation configs/apcnet.
    "paper": SGD_POLY | WITH_AUX,
}
