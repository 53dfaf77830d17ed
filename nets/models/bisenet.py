"""BiSeNet: a shallow path keeps the details, a deep one sees far, and both are fused.

Papers: v1: Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV
2018, https://arxiv.org/abs/1808.00897; v2: Yu et al., "BiSeNet V2: Bilateral Network with Guided Aggregation
for Real-time Semantic Segmentation", IJCV 2021, https://arxiv.org/abs/2004.02147

Version "v1" takes any backbone for its context path, "v2" has two branches of its own
(`nets/backbones/bisenetv2.py`).

Deviations: v1 enlarges the maps of the context path by the nearest neighbour, as MMSegmentation does; the
paper leaves it open. MMSegmentation makes the weights of the fusion by one convolution with a norm
(`norm_gate`). The auxiliary heads (`aux`) are as wide as MMSegmentation's, those of v2 with the one 3x3
convolution of the paper.
"""

import inspect
from typing import Literal

from torch import nn

from nets.backbones.bisenetv2 import LAYERS, BiSeNetV2
from nets.backbones.configured import create_configured_backbone
from nets.decoders.bilateral import BilateralModel, ContextPath, FeatureFusion
from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.errors import UserError
from nets.layers.conv import ConvNormAct
from nets.recipes import SGD_POLY
from nets.registry import plain, register_model
from nets.segmentation_model import SegmentationModel

HEAD = {"num_convs": 1, "concat_input": False, "index": (0,)}
HEAD_CHANNELS = {"v1": 256, "v2": 1024}
# Usual auxiliary heads: on both context maps of v1, on the stages of v2's semantic branch.
AUX = {
    "v1": tuple({"channels": 64, "index": (i,)} for i in (1, 2)),
    "v2": tuple({"channels": width, "index": (i,)} for i, width in enumerate((16, 64, 256, 1024), 1)),
}
# Options of one version.
OWN = {
    "v1": ("spatial_channels", "context_channels", "fusion_channels", "norm_gate", "backbone_options"),
    "v2": (
        "detail_channels",
        "semantic_channels",
        "expansion",
        "extra_activations",
        "aggregation_bias",
        "inner_align_corners",
    ),
}


@register_model
def bisenet(
    *,
    bands: int,
    num_classes: int,
    version: Literal["v1", "v2"] = "v1",
    backbone: Literal["auto"] | str = "auto",
    channels: int | None = None,
    dropout: float = 0.1,
    align_corners: bool = False,
    spatial_channels: tuple[int, ...] = (64, 64, 64, 128),
    context_channels: int = 128,
    fusion_channels: int = 256,
    norm_gate: bool = False,
    detail_channels: tuple[int, ...] = (64, 64, 128),
    semantic_channels: tuple[int, ...] = (16, 32, 64, 128),
    expansion: int = 6,
    extra_activations: bool = False,
    aggregation_bias: bool = False,
    inner_align_corners: bool = False,
    aux: bool = False,
    head_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """BiSeNet v1 on the two deepest maps of any backbone, or v2.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        version: see above.
        backbone: v1: "auto" is resnet18; v2 has one of its own.
        channels: width of the head; None is 256, for v2 1024.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        spatial_channels: v1: widths of the spatial path's four convolutions.
        context_channels: v1: width of the context path.
        fusion_channels: v1: width of the fusion.
        norm_gate: v1: the fusion's weights as MMSegmentation makes them.
        detail_channels: v2: widths of the detail branch.
        semantic_channels: v2: widths of the semantic branch; the last is the detail branch's.
        expansion: v2: of the gather-and-expansion layers.
        extra_activations: v2: MMSegmentation's further norms and ReLUs.
        aggregation_bias: v2: MMSegmentation's biases of the aggregation.
        inner_align_corners: v2: how the aggregation enlarges maps.
        aux: auxiliary heads, in training.
        head_options: further arguments of the head.
        aux_heads: arguments of auxiliary heads instead of the usual ones.
        backbone_options: v1: the backbone stated one by one.
    """
    given = dict(locals())
    _check(version, given)
    shape = {"bands": bands, "num_classes": num_classes, "dropout": dropout, "align_corners": align_corners}
    if version == "v1":
        name = "resnet18" if plain(backbone) == "auto" else backbone
        encoder = create_configured_backbone(name, bands=bands, stages=2, options=backbone_options)
        fusion = FeatureFusion(spatial_channels[-1] + context_channels, fusion_channels, norm_gate=norm_gate)
        maps = [fusion_channels, context_channels, context_channels, spatial_channels[-1]]
        parts = {
            "context": ContextPath(encoder.channels, context_channels),
            "fusion": fusion,
            "spatial": _spatial_path(bands, spatial_channels),
        }
        kind = BilateralModel
    else:
        name = "bisenetv2"
        encoder = BiSeNetV2(
            bands=bands,
            detail_channels=detail_channels,
            semantic_channels=semantic_channels,
            expansion=expansion,
            align_corners=inner_align_corners,
            extra_activations=extra_activations,
            aggregation_bias=aggregation_bias,
        )
        maps, parts, kind = encoder.channels, {}, SegmentationModel
    width = channels or HEAD_CHANNELS[version]
    decoder = FCNDecoder(maps, width, align_corners=align_corners, **(HEAD | (head_options or {})))
    heads = create_aux_heads(
        maps, num_classes, aux=False, aux_heads=aux_heads or (AUX[version] if aux else ())
    )
    network = kind(encoder, decoder, aux_heads=heads, **parts, **shape)
    network.decided = {"backbone": name}
    return network


def _spatial_path(bands: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Return three convolutions that halve the image and one that does not (v1's figure 2a)."""
    first, second, third, last = widths
    return nn.Sequential(
        ConvNormAct(bands, first, 7, stride=2),
        ConvNormAct(first, second, stride=2),
        ConvNormAct(second, third, stride=2),
        ConvNormAct(third, last, 1),
    )


def _check(version: str, given: dict) -> None:
    """Refuse options of the other version, and widths that do not fit.

    Raises:
        UserError: one is given.
    """
    other = "v2" if version == "v1" else "v1"
    for name in OWN[other]:
        if given[name] != inspect.signature(bisenet).parameters[name].default:
            raise UserError(
                f"bisenet: {name}={given[name]} is given with version={version}; it belongs to "
                f"version={other}; leave it out or change the version"
            )
    if version == "v2" and plain(given["backbone"]) not in ("auto", "bisenetv2"):
        raise UserError(
            f"bisenet: backbone {given['backbone']} is given with version=v2, which has its own; "
            "leave it out, or take version=v1"
        )
    numbers = {"spatial_channels": 4, "detail_channels": 3, "semantic_channels": len(LAYERS) + 1}
    for name, number in numbers.items():
        if len(given[name]) != number:
            raise UserError(f"bisenet: {name}={given[name]} is given; {number} numbers are needed")
    if given["detail_channels"][-1] != given["semantic_channels"][-1]:
        raise UserError(
            f"bisenet: detail_channels={given['detail_channels']} and "
            f"semantic_channels={given['semantic_channels']} are given; their last numbers must be equal"
        )


_SGD = SGD_POLY | {"warmup_iters": 1000, "warmup_factor": 0.1, "aux_weight": 1.0}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/bisenetv1 and bisenetv2: Cityscapes, 160k iterations, total batch 16.
    "paper": _SGD | {"lr": 0.025, "model_options": {"aux": True, "dropout": 0.1}},
    "paper_where": [({"backbone": "resnet50"}, {"lr": 0.05}), ({"version": "v2"}, {"lr": 0.05})],
}
