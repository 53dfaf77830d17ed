"""OpenMMLab's ASPPHead and DepthwiseSeparableASPPHead: family deeplab, versions v3 and v3plus."""

from functools import partial

from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, type_of
from nets.importers.mmseg_heads import (
    aspp_head,
    aspp_rules,
    aux_options,
    aux_rules,
    conv_rules,
    pooled_branch_last,
    separable_rules,
)
from nets.importers.placing import Rules

HEADS = ("ASPPHead", "DepthwiseSeparableASPPHead")


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    plus = type_of(head) == "DepthwiseSeparableASPPHead"
    own = {"c1_channels": 48, "c1_in_channels": None} if plus else {}
    options = {
        "backbone": backbone.name,
        "version": "v3plus" if plus else "v3",
        **aspp_head(head, own),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    rules: Rules = aspp_rules("decoder", options["dilations"], separable=plus)
    if plus:
        options["low_channels"] = head.get("c1_channels", 48) if head.get("c1_in_channels") else 0
        rules += conv_rules(r"decode_head\.c1_bottleneck", "decoder.low")
        rules += separable_rules(r"decode_head\.sep_bottleneck\.(\d+)", r"decoder.refine.\1")
    convert = [partial(pooled_branch_last, channels=options["channels"]), *backbone.converts]
    return "deeplab", options, [*rules, *aux_rules(model), *backbone.rules], *convert
