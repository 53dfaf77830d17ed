"""OpenMMLab's LRASPPHead: family lraspp with its own head."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import conv_rules, shared_options, take_head
from nets.importers.placing import Rules

HEADS = ("LRASPPHead",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    o = take_head(head, {"branch_channels": (32, 64)})
    branches = tuple(o["branch_channels"])
    if list(o["in_index"]) != list(range(len(branches) + 1)) or model.get("auxiliary_head"):
        raise UserError("LRASPPHead is needed on all maps of a backbone and without auxiliary heads")
    options = {
        "backbone": backbone.name,
        "version": "mmseg",
        **shared_options(head, o),
        "branch_channels": branches,
        "backbone_options": backbone.options,
    }
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        (r"decode_head\.image_pool\.1\.conv\.", "decoder.deep.gate."),
        *conv_rules(r"decode_head\.aspp_conv", "decoder.deep.conv"),
        (r"decode_head\.conv_up_input\.", "decoder.after."),
        (r"decode_head\.convs\.conv(\d+)\.", r"decoder.reduce.\1."),
        *conv_rules(r"decode_head\.conv_ups\.conv_up(\d+)", r"decoder.join.\1"),
        *backbone.rules,
    ]
    return "lraspp", options, rules, *backbone.converts
