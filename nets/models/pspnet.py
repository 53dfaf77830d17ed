"""PSPNet: pool the deepest features over grids of several sizes to see the whole scene.

Paper: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, https://arxiv.org/abs/1612.01105

Deviations: the backbone is the standard ResNet (the paper's has a stem of three convolutions:
`backbone_options`); the auxiliary classifier of the paper's section 3.3 is optional (`aux`). MMSegmentation
projects each grid to the decoder's width (`pool_channels`), which is the same on ResNet-50 and deeper.
"""

from typing import Literal

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads
from nets.decoders.pyramid_pooling import PSPDecoder
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


@register_model
def pspnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    pool_scales: tuple[int, ...] = (1, 2, 3, 6),
    pool_channels: int | None = None,
    join_kernel: int = 3,
    norm_single: bool = True,
    in_index: int = -1,
    dropout: float = 0.1,
    classifier_kernel: int = 1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """PSPNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages((in_index,), aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = PSPDecoder(
        encoder.channels,
        channels,
        index=in_index,
        scales=pool_scales,
        pool_channels=pool_channels,
        join_kernel=join_kernel,
        norm_single=norm_single,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        classifier_kernel=classifier_kernel,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/pspnet: ADE20K, total batch 16.
    "paper": SGD_POLY | WITH_AUX,
}
