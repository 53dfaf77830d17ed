"""OpenMMLab's JPU neck with EncHead, PSPHead or ASPPHead: family fastfcn."""

from functools import partial

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need, norm_eps, take, type_of
from nets.importers.mmseg_encnet import enc_head, enc_rules
from nets.importers.mmseg_heads import (
    aspp_head,
    aspp_rules,
    aux_options,
    aux_rules,
    conv_rules,
    pooled_branch_last,
    psp_head,
    psp_rules,
)
from nets.importers.placing import Rules

HEADS = ("EncHead", "PSPHead", "ASPPHead")
NECKS = ("JPU",)
# What our builder takes beside `head_options`.
_OUTSIDE = ("channels", "dropout", "align_corners", "norm_eps", "presence", "in_index")
_RENAMED = {"pool_scales": "scales"}


def _jpu(neck: dict, maps: int) -> tuple[dict, Rules]:
    o = take(
        neck,
        {
            "mid_channels": 512, "start_level": 0, "end_level": -1, "dilations": (1, 2, 4, 8),
            "align_corners": False, "conv_cfg": None, "act_cfg": {"type": "ReLU"},
        },
    )  # fmt: skip
    need(neck, o, start_level=0, conv_cfg=None, act_cfg={"type": "ReLU"})
    if o["end_level"] not in (-1, maps):
        raise UserError(f"JPU has end_level={o['end_level']}; all {maps} maps are needed here")
    options = {
        "jpu_channels": o["mid_channels"],
        "jpu_dilations": tuple(o["dilations"]),
        "jpu_align_corners": bool(o["align_corners"]),
        "jpu_norm_eps": norm_eps({"norm_cfg": {"type": "BN"}} | neck),
    }
    theirs, ours = r"neck\.dilation_layers\.(\d+)\.0", r"decoder.jpu.branches.\1"
    rules = [
        *conv_rules(r"neck\.conv_layers\.(\d+)\.0", r"decoder.jpu.reduce.\1"),
        *conv_rules(rf"{theirs}\.depthwise_conv", f"{ours}.depthwise"),
        *conv_rules(rf"{theirs}\.pointwise_conv", f"{ours}.pointwise"),
    ]
    return options, rules


def _head(head: dict, maps: int) -> tuple[str, dict, Rules, list]:
    """Return the head's name, options, rules and conversions."""
    kind = type_of(head)
    if kind == "EncHead":
        name, own, rules, convert = "enc", enc_head(head), enc_rules("decoder.head"), []
        own["lateral_index"] = tuple(i % maps for i in own["lateral_index"])
    elif kind == "PSPHead":
        name, own, rules, convert = "psp", psp_head(head), psp_rules("decoder.head"), []
    else:
        own = aspp_head(head, {})
        name, rules = "aspp", aspp_rules("decoder.head", own["dilations"], separable=False)
        convert = [partial(pooled_branch_last, channels=own["channels"])]
    if own["in_index"] % maps != maps - 1 or maps - 1 in own.get("lateral_index", ()):
        raise UserError(f"{kind} uses map {own['in_index']} of the JPU; the joined one is needed here")
    return name, own, rules, convert


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    maps = len(backbone.options["out_stages"])
    jpu, jpu_rules = _jpu(model["neck"], maps)
    head, own, rules, convert = _head(last_head(model), maps)
    aux = aux_options(model)
    if any(i % maps == maps - 1 for each in aux for i in each["index"]):
        raise UserError("an auxiliary head is on the JPU's joined map; a map of the backbone is needed here")
    options = {
        "backbone": backbone.name,
        "head": head,
        **jpu,
        **{key: value for key, value in own.items() if key in _OUTSIDE and key != "in_index"},
        "head_options": {_RENAMED.get(key, key): value for key, value in own.items() if key not in _OUTSIDE},
        "aux_heads": aux,
        "backbone_options": backbone.options,
    }
    every = [*rules, *jpu_rules, *aux_rules(model), *backbone.rules]
    return "fastfcn", options, every, *convert, *backbone.converts
