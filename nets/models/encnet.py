"""EncNet: a learnt dictionary describes the scene, and the description weighs the channels of every pixel.

Paper: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR 2018, https://arxiv.org/abs/1803.08904

Deviations: none in the network; `lateral_index` joins finer maps, an option of the authors' later code. The
semantic encoding loss of section 3.2 works on the output "class_presence".
"""

from typing import Literal

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.encoding import EncodingDecoder, EncodingModel
from nets.decoders.fcn import count_stages, create_aux_heads
from nets.recipes import SGD_POLY, WITH_AUX, WITH_PRESENCE
from nets.registry import register_model


@register_model
def encnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    codes: int = 32,
    presence: bool = True,
    in_index: int = -1,
    lateral_index: tuple[int, ...] = (),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> EncodingModel:
    """EncNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages((in_index, *lateral_index), aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = EncodingDecoder(
        encoder.channels,
        channels,
        index=in_index,
        lateral_index=lateral_index,
        codes=codes,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    return EncodingModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        presence=presence,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3} | WITH_PRESENCE,
    # MMSegmentation configs/encnet.
    "paper": SGD_POLY | WITH_AUX | WITH_PRESENCE,
}
