"""FCN: a classification network made fully convolutional scores every pixel.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038

Versions: "dilated" puts convolutions on the deepest map of a backbone whose last stages are dilated (Chen et
al., https://arxiv.org/abs/1606.00915) instead of adding skips; this is the FCN that later papers compare
with.

Deviations: the head of "dilated" is MMSegmentation's (two 3x3 convolutions of 512 channels, joined with their
input).
"""

from typing import Literal

from nets.backbones.catalogue import can_dilate
from nets.backbones.configured import create_configured_backbone
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


@register_model
def fcn(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    version: Literal["dilated"] = "dilated",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    num_convs: int = 2,
    kernel_size: int = 3,
    dilation: int = 1,
    concat_input: bool = True,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """FCN on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    if output_stride is None and not backbone_options:
        output_stride = 8 if can_dilate(backbone) else None
    encoder = create_configured_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = FCNDecoder(
        encoder.channels,
        channels,
        index=in_index,
        num_convs=num_convs,
        kernel_size=kernel_size,
        dilation=dilation,
        concat_input=concat_input,
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
    # MMSegmentation configs/fcn: ADE20K, total batch 16.
    "paper": {
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 16,
        "loss": "ce",
        "aux_weight": 0.4,
        "model_options": {"aux": True, "dropout": 0.1},
    },
}
