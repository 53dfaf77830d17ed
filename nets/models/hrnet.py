"""HRNet: the high resolution is kept through the whole network; maps of all resolutions classify each pixel.

Paper: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020,
https://arxiv.org/abs/1908.07919

Versions (paper, section 3.4): "v2" joins the maps of all four resolutions, enlarged to the finest, by a 1x1
convolution; "v1" uses the finest alone.

Deviations: those of `nets/backbones/hrnet.py`.
"""

from typing import Literal

from nets.backbones.hrnet import HRNet
from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


@register_model
def hrnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["w18s", "w18", "w30", "w32", "w40", "w44", "w48", "w64"] = "w18",
    version: Literal["v2", "v1"] = "v2",
    channels: int | None = None,
    num_convs: int = 1,
    kernel_size: int = 1,
    dilation: int = 1,
    concat_input: bool = False,
    dropout: float = 0.0,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    backbone_norm_eps: float = 1e-5,
    aux_heads: tuple[dict, ...] = (),
) -> SegmentationModel:
    """HRNet of any width.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: width of the finest branch; "w18s" has half as many blocks and fewer modules.
        version: maps that are used, see above.
        channels: width of the head; None is the sum of the maps' widths, as in the paper.
        num_convs: convolutions of the head.
        kernel_size: of these convolutions.
        dilation: of these convolutions.
        concat_input: join their result with their input by one more.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are enlarged.
        norm_eps: epsilon of the head's batch norms.
        backbone_norm_eps: epsilon of the backbone's batch norms.
        aux_heads: arguments of auxiliary FCN heads.
    """
    encoder = HRNet(f"hrnet_{backbone}", bands=bands, highest=version == "v1", norm_eps=backbone_norm_eps)
    decoder = FCNDecoder(
        encoder.channels,
        channels or sum(encoder.channels),
        index=tuple(range(len(encoder.channels))),
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
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=False, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/hrnet: ADE20K 160k iterations, total batch 16, no auxiliary head.
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
        "model_options": {"dropout": 0.0},
    },
}
