"""FCN: a classification network made fully convolutional scores every pixel.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038

Versions: "32s", "16s" and "8s" are the paper's networks: VGG16 with its fully connected layers as
convolutions, scores of conv7, of conv7 and pool4, of conv7, pool4 and pool3. "dilated" puts convolutions on
the deepest map of a backbone whose last stages are dilated (Chen et al., https://arxiv.org/abs/1606.00915)
instead of adding skips; this is the FCN that later papers compare with.

Parameters of the paper's networks: conv1 to conv5 14,714,688, conv6 102,764,544 (7x7) and conv7 16,781,312
make 134.26 M, the paper's 134 M (table 1); scores 4096 K + K, 512 K + K and 256 K + K, and 16 K^2 in each
enlargement.

Deviations: the authors' net definitions (https://github.com/shelhamer/fcn.berkeleyvision.org) put 100
pixels around the image, because conv6 is not padded, and cut the logits out by offsets. Here conv6 is
padded by 3. That is much less work and differs only where conv6 reaches over the border. As pooling rounds
up, as theirs does, cell i of a map is pixels i * stride to (i + 1) * stride - 1 of any image, and the
scores are aligned without offsets. The enlargements by 2 start bilinear and learn, as in the paper; the
definitions fix them and their authors saw no difference. The last enlargement is bilinear and fixed in
both. The versions are not trained in turn, one from the other; `at_once` has the factors by which the
authors' network of that name scales pool4 and pool3, made for VGG16 on values up to 255. The head of
"dilated" is MMSegmentation's (two 3x3 convolutions of 512 channels, joined with their input).
"""

import inspect
from typing import Literal

from nets.backbones.catalogue import find_backbone
from nets.backbones.configured import create_dilated_backbone
from nets.backbones.convolutional_vgg import CLASSIFIER_CHANNELS, ConvolutionalVGG
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.decoders.skip_scores import SkipScores
from nets.errors import UserError
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import plain, register_model
from nets.segmentation_model import ScoringModel, SegmentationModel

# Maps that are scored.
SCORED = {"8s": 3, "16s": 2, "32s": 1}
VGGS = tuple(f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in (11, 13, 16, 19))
# Factors on pool3 and pool4 (voc-fcn8s-atonce/net.py).
AT_ONCE = (1e-4, 1e-2)


@register_model
def fcn(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["auto"] | str = "auto",
    version: Literal["dilated", "8s", "16s", "32s"] = "dilated",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int | None = None,
    num_convs: int = 2,
    kernel_size: int = 3,
    dilation: int = 1,
    concat_input: bool = True,
    in_index: tuple[int, ...] = (-1,),
    dropout: float | None = None,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    at_once: bool = False,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel | ScoringModel:
    """FCN: dilated on any backbone, or 8s, 16s, 32s on a VGG.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: "auto" is resnet50, for 8s, 16s, 32s vgg16.
        version: see above.
        output_stride: dilated: in pixels; None is 8 where the backbone can be dilated, else its own.
        channels: width of the convolutions behind the backbone; None is 512, for 8s, 16s, 32s 4096.
        num_convs: dilated: number of these convolutions.
        kernel_size: dilated: of these convolutions.
        dilation: dilated: of these convolutions.
        concat_input: dilated: join their result with their input by one more.
        in_index: dilated: maps that are used.
        dropout: None is 0.1 (of channels), for 8s, 16s, 32s 0.5 (of values).
        align_corners: dilated: how maps and logits are enlarged.
        norm_eps: dilated: epsilon of the head's batch norms.
        at_once: 8s, 16s: the authors' factors on pool4 and pool3.
        aux: dilated: the usual auxiliary head on the last map but one.
        aux_heads: dilated: arguments of auxiliary heads instead of the usual one.
        backbone_options: dilated: the backbone stated one by one.
    """
    if version in SCORED:
        given = {
            "output_stride": output_stride,
            "num_convs": num_convs,
            "kernel_size": kernel_size,
            "dilation": dilation,
            "concat_input": concat_input,
            "in_index": in_index,
            "align_corners": align_corners,
            "norm_eps": norm_eps,
            "aux": aux,
            "aux_heads": aux_heads,
            "backbone_options": backbone_options,
        }
        _refuse(version, given, "dilated")
        if SCORED[version] == 1:
            _refuse(version, {"at_once": at_once}, "8s or 16s")
        shape = {"channels": channels or CLASSIFIER_CHANNELS, "dropout": 0.5 if dropout is None else dropout}
        name = _find_vgg(version, backbone)
        network = _create_skip_fcn(name, version, bands, num_classes, at_once=at_once, **shape)
        network.decided = {"backbone": name}
        return network
    _refuse(version, {"at_once": at_once}, "8s or 16s")
    backbone = "resnet50" if plain(backbone) == "auto" else backbone
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = FCNDecoder(
        encoder.channels,
        512 if channels is None else channels,
        index=in_index,
        num_convs=num_convs,
        kernel_size=kernel_size,
        dilation=dilation,
        concat_input=concat_input,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    network = SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=0.1 if dropout is None else dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )
    network.decided = {"backbone": backbone}
    return network


def _refuse(version: str, given: dict, belongs_to: str) -> None:
    """Refuse options of other versions that are not left at their defaults."""
    for name, value in given.items():
        if value != inspect.signature(fcn).parameters[name].default:
            raise UserError(
                f"fcn: {name}={value} is given with version={version}; it belongs to version={belongs_to}; "
                "leave it out or change the version"
            )


def _find_vgg(version: str, backbone: str) -> str:
    """Return timm's name of the VGG that a version of the paper is built on."""
    name = "vgg16" if plain(backbone) == "auto" else find_backbone(backbone)
    if name not in VGGS:
        raise UserError(
            f"fcn: backbone {backbone} is given with version={version}, which is made of a VGG; allowed: "
            f"{', '.join(VGGS)}; or take version=dilated"
        )
    return name


def _create_skip_fcn(
    name: str,
    version: str,
    bands: int,
    num_classes: int,
    *,
    channels: int,
    dropout: float,
    at_once: bool,
) -> ScoringModel:
    """Build FCN-8s, 16s or 32s."""
    stages = SCORED[version]
    encoder = ConvolutionalVGG(name, bands=bands, stages=stages, channels=channels, dropout=dropout)
    scales = AT_ONCE if at_once else (1.0, 1.0)
    decoder = SkipScores(
        encoder.channels,
        num_classes,
        stride=encoder.strides[0],
        scales=scales[len(scales) - stages + 1 :],
    )
    return ScoringModel(encoder, decoder, bands=bands, num_classes=num_classes)


# The paper's networks have no norms and learn faster at a tenth of Adam's usual rate.
SKIP_PLAIN = {"lr": 1e-4}
SKIP_PAPER = {
    "lr": 1e-4,
    "poly_power": 0.0,
    "min_lr": 0.0,
    "batch_size": 20,
    "model_options": {"aux": False, "dropout": 0.5},
}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    "plain_where": [({"version": version}, SKIP_PLAIN) for version in SCORED],
    # MMSegmentation configs/fcn: ADE20K, total batch 16.
    "paper": SGD_POLY | WITH_AUX,
    # The paper, section 4.3: PASCAL VOC, 20 images, a fixed rate, from ImageNet's weights. The 1e-10 of the
    # net definitions is for a sum over one image's pixels and momentum 0.99; for a mean and momentum 0.9 it
    # is about the same: 1e-10 * 500 * 375 * (1 - 0.9) / (1 - 0.99) = 1.9e-4.
    "paper_where": [({"version": version}, SKIP_PAPER) for version in SCORED],
}
