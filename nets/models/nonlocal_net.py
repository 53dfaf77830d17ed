"""Non-local network: every pixel adds the weighted mean of all pixels of the map.

Paper: Wang et al., "Non-local Neural Networks", CVPR 2018, https://arxiv.org/abs/1711.07971

Deviations: the block stands in the decoder between two convolutions, as MMSegmentation has it for
segmentation, instead of in the backbone's residual blocks; products are divided by the square root of their
width, which the text does not do (`scaled=false`).
"""

from typing import Literal

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.layers.non_local import Mode, NonLocal
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


@register_model
def nonlocal_net(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    reduction: int = 2,
    scaled: bool = True,
    mode: Mode = "embedded_gaussian",
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
    """Non-local network on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
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
        kernel_size=kernel_size,
        dilation=dilation,
        concat_input=concat_input,
        context=NonLocal(channels, reduction=reduction, scaled=scaled, mode=mode),
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
    # MMSegmentation configs/nonlocal_net.
    "paper": SGD_POLY | WITH_AUX,
}
