"""Networks of segmentation_models.pytorch on its usual encoders.

https://github.com/qubvel-org/segmentation_models.pytorch, MIT. A state dict does not show the output stride,
the dilations of DeepLab's branches and how maps are enlarged; they are arguments here, with that package's
defaults. Its folders (`save_pretrained`) say them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nets.backbones.configured import create_configured_backbone
from nets.errors import UserError
from nets.importers.placing import Rules, rename
from nets.importers.smp_decoders import (
    Decoder,
    Source,
    conv_rules,
    count,
    fpn,
    linknet,
    manet,
    pan,
    segformer,
    unet,
    unet_plusplus,
    upernet,
)
from nets.importers.smp_encoders import DEPTH, Encoder, read_encoder

# The beginning of a tensor's name that only one class has -> our family; the first that fits counts.
MARKS = {
    "decoder.blocks.x_0_0.": "unet_plusplus",
    "decoder.blocks.0.hl_conv.": "manet",
    "decoder.blocks.0.block.": "linknet",
    "decoder.blocks.0.conv1.": "unet",
    "decoder.fpa.": "pan",
    "decoder.p5.": "sem_fpn",
    "decoder.psp.out_conv.": "upernet",
    "decoder.psp.blocks.0.pool.": "pspnet",
    "decoder.aspp.": "deeplab",
    "decoder.mlp_stage.": "segformer",
}
READERS: dict[str, Callable[[Source], Decoder]] = {
    "linknet": linknet,
    "manet": manet,
    "segformer": segformer,
    "sem_fpn": fpn,
    "unet": unet,
    "unet_plusplus": unet_plusplus,
    "upernet": upernet,
}
# The names of a network's decoder that count the encoder's maps, and how many more these are.
DEPTHS = {
    "unet": (r"decoder\.blocks\.(\d+)\.", 0),
    "unet_plusplus": (r"decoder\.blocks\.x_0_(\d+)\.", 0),
    "linknet": (r"decoder\.blocks\.(\d+)\.", 0),
    "manet": (r"decoder\.blocks\.(\d+)\.", 0),
    "pan": (r"decoder\.gau(\d+)\.", 1),
    "upernet": (r"decoder\.feature_norms\.(\d+)\.", 1),
}


def is_smp(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these are the weights of a network of segmentation_models.pytorch."""
    return "segmentation_head.0.weight" in state_dict and any(
        key.startswith("encoder.") for key in state_dict
    )


def read_smp(
    state_dict: dict[str, Tensor],
    *,
    output_stride: int | None = None,
    dilations: tuple[int, ...] | None = None,
    config: dict | None = None,
) -> tuple[dict, dict[str, Tensor]]:
    """Translate the weights of a network of segmentation_models.pytorch.

    Args:
        state_dict: its weights.
        output_stride: `encoder_output_stride` of DeepLab, 8 or 16, and of PAN, 16 or 32; None is 8 for
            DeepLabV3, 16 for the others.
        dilations: DeepLab's `decoder_atrous_rates`; None is 12, 24, 36.
        config: arguments of its class that are saved with it.

    Returns:
        The blueprint and the state dict of our network, which `place_weights` loads.

    Raises:
        UserError: another network, or an encoder that is not known.
    """
    if not is_smp(state_dict):
        raise UserError("these are not the weights of a network of segmentation_models.pytorch")
    if output_stride not in (None, 8, 16, 32):
        raise UserError(f"output_stride={output_stride} is given; 8, 16 and 32 are allowed")
    config = config or {}
    family = next((f for mark, f in MARKS.items() if any(key.startswith(mark) for key in state_dict)), None)
    if family is None:
        raise UserError(
            "this decoder of segmentation_models.pytorch is not known here; those of Unet, UnetPlusPlus, "
            "MAnet, Linknet, FPN, PSPNet, PAN, DeepLabV3, DeepLabV3Plus, UPerNet and Segformer are"
        )
    if family == "pspnet":
        source, decoder = _pspnet(state_dict, config)
        state_dict = _input_first(state_dict)
    else:
        source = _source(family, state_dict, config)
        if family == "deeplab":
            decoder = _deeplab(source, output_stride, dilations or config.get("decoder_atrous_rates"))
        else:
            decoder = pan(source, output_stride) if family == "pan" else READERS[family](source)
    return _assembled(family, source, decoder, state_dict)


def _source(family: str, state_dict: dict[str, Tensor], config: dict) -> Source:
    pattern, more = DEPTHS.get(family, ("", 0))
    depth = count(state_dict, pattern) + more if pattern else config.get("encoder_depth", DEPTH)
    return Source(state_dict, read_encoder(state_dict, depth, config.get("encoder_name", "")), depth, config)


def _assembled(
    family: str, source: Source, decoder: Decoder, state_dict: dict[str, Tensor]
) -> tuple[dict, dict[str, Tensor]]:
    """Return the blueprint and the weights by our names."""
    encoder = source.encoder
    backbone = encoder.options(source.depth, last=decoder.maps, output_stride=decoder.output_stride)
    if backbone is None and family in ("sem_fpn", "upernet") and encoder.dilates == "output_stride":
        backbone = {"maps": encoder.last_maps(decoder.maps)}  # without the norms that these add to some
    options = {
        "bands": encoder.bands,
        "num_classes": source.width("segmentation_head.0.weight"),
        "backbone": encoder.name.removeprefix("mit_") if family == "segformer" else encoder.name,
        **decoder.options,
    }
    if options["num_classes"] == 1:
        options["task"] = "multilabel"  # one class is there or not, by a sigmoid
    if family != "segformer":
        options["backbone_options"] = backbone
    theirs = {key: x for key, x in state_dict.items() if not key.startswith("encoder.")}
    rules = [(r"segmentation_head\.0\.", "classifier."), *decoder.rules]
    weights = rename(decoder.convert(theirs) if decoder.convert else theirs, rules)
    return {"name": family, "options": options}, {**encoder.weights(backbone), **weights}


def _separable_rules(theirs: str, norm: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.0\.", f"{ours}.depthwise.conv."),
        (rf"{theirs}\.1\.", f"{ours}.pointwise.conv."),
        (rf"{norm}\.", f"{ours}.pointwise.norm."),
    ]


def _pspnet(state_dict: dict[str, Tensor], config: dict) -> tuple[Source, Decoder]:
    projected = state_dict["decoder.psp.blocks.0.pool.1.0.weight"]
    options = {
        "channels": state_dict["decoder.conv.0.weight"].shape[0],
        "pool_channels": projected.shape[0],
        "join_kernel": 1,
        "norm_single": False,
        "dropout": 0.2,
        "classifier_kernel": 3,
        "align_corners": True,
    }
    rules = conv_rules(r"decoder\.psp\.blocks\.(\d+)\.pool\.1", r"decoder.pyramid.branches.\1.1")
    rules += conv_rules(r"decoder\.conv", "decoder.join")
    # The grids lie on the map of stride 8 by default; the encoder's further stages are idle.
    for depth in (3, 4, DEPTH):
        encoder = _encoder_of_depth(state_dict, depth, config)
        if encoder is not None and _deepest(encoder, depth) == projected.shape[1]:
            return Source(state_dict, encoder, depth, config), Decoder(options, rules, 1)
    raise UserError("the encoder of this PSPNet has no map of the width that its grids take")


def _encoder_of_depth(state_dict: dict[str, Tensor], depth: int, config: dict) -> Encoder | None:
    """Return the encoder; None where it is one of timm's that has another depth."""
    try:
        return read_encoder(state_dict, depth, config.get("encoder_name", ""))
    except UserError:
        if depth == DEPTH:
            raise
        return None


def _deepest(encoder: Encoder, depth: int) -> int:
    """Return the channels of an encoder's deepest map."""
    with torch.device("meta"):
        options = encoder.options(depth, last=1)
        return create_configured_backbone(encoder.name, bands=1, options=options).channels[-1]


def _input_first(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the input's channels before those of the grids, where the paper has them."""
    key = "decoder.conv.0.weight"
    weight = state_dict[key]
    width = state_dict["decoder.psp.blocks.0.pool.1.0.weight"].shape[1]
    return {**state_dict, key: torch.cat([weight[:, -width:], weight[:, :-width]], dim=1)}


def _aspp_rules(theirs: str, *, separable: bool) -> Rules:
    ours = "decoder.aspp"
    rules = [
        (rf"{theirs}\.convs\.4\.1\.", f"{ours}.pooled.1.conv."),
        (rf"{theirs}\.convs\.4\.2\.", f"{ours}.pooled.1.norm."),
        *conv_rules(rf"{theirs}\.convs\.0", f"{ours}.branches.0"),
        *conv_rules(rf"{theirs}\.project", f"{ours}.join"),
    ]
    for i in (1, 2, 3):
        branch, place = rf"{theirs}\.convs\.{i}", f"{ours}.branches.{i}"
        if separable:
            rules += _separable_rules(rf"{branch}\.0", rf"{branch}\.1", place)
        else:
            rules += conv_rules(branch, place)
    return rules


def _deeplab(source: Source, output_stride: int | None, dilations: tuple[int, ...] | None) -> Decoder:
    plus = "decoder.aspp.0.convs.0.0.weight" in source.state_dict
    read = _deeplab_v3plus if plus else _deeplab_v3
    options, rules = read(source)
    options |= {
        "dilations": (1, *(dilations or (12, 24, 36))),
        "join_dropout": 0.5,
        "num_convs": 1,
        "dropout": 0.0,
        "align_corners": True,
    }
    stride = output_stride or source.config.get("encoder_output_stride", 16 if plus else 8)
    return Decoder(options, rules, 4, stride)


def _deeplab_v3(source: Source) -> tuple[dict, Rules]:
    if "decoder.aspp.convs.1.0.1.weight" in source.state_dict:
        raise UserError("DeepLabV3 with decoder_aspp_separable cannot be imported; DeepLabV3Plus can")
    rules = _aspp_rules(r"decoder\.aspp", separable=False)
    rules += [(r"decoder\.conv\.", "decoder.refine.0.conv."), (r"decoder\.bn\.", "decoder.refine.0.norm.")]
    return {"version": "v3", "channels": source.width("decoder.conv.weight")}, rules


def _deeplab_v3plus(source: Source) -> tuple[dict, Rules]:
    if "decoder.aspp.0.convs.1.0.1.weight" not in source.state_dict:
        raise UserError("DeepLabV3Plus without decoder_aspp_separable cannot be imported")
    options = {
        "version": "v3plus",
        "channels": source.width("segmentation_head.0.weight", 1),
        "low_channels": source.width("decoder.block1.0.weight"),
        "aspp_convs": 1,
        "norm_between": False,
    }
    rules = _aspp_rules(r"decoder\.aspp\.0", separable=True)
    rules += _separable_rules(r"decoder\.aspp\.1", r"decoder\.aspp\.2", "decoder.deepen.0")
    rules += conv_rules(r"decoder\.block1", "decoder.low")
    rules += _separable_rules(r"decoder\.block2\.0", r"decoder\.block2\.1", "decoder.refine.0")
    return options, rules
