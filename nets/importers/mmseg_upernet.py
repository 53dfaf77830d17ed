"""OpenMMLab's UPerHead on a backbone with a pyramid of maps: family upernet."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, norm_eps, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, conv_rules, dropout_rate, psp_rules, take_head
from nets.importers.placing import Rules
from nets.importers.plain_backbones import PLAIN, as_built, pyramid_neck

HEADS = ("UPerHead",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversion of a configuration's model."""
    backbone = translate_backbone(as_built(model["backbone"], keys))
    head, neck = last_head(model), model.get("neck") or {}
    o = take_head(head, {"pool_scales": (1, 2, 3, 6)})
    if list(o["in_index"]) != [0, 1, 2, 3] or (neck and type_of(model["backbone"]) not in PLAIN):
        raise UserError(
            "UPerHead is needed on all four maps of a backbone, with a neck on a plain transformer only"
        )
    neck_options, neck_rules = pyramid_neck(neck, len(backbone.options.get("blocks", ())))
    options = {
        "backbone": backbone.name,
        "channels": o["channels"],
        "pool_scales": tuple(o["pool_scales"]),
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(head),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options | neck_options,
    }
    rules: Rules = [
        *psp_rules("decoder.context"),
        *conv_rules(r"decode_head\.lateral_convs\.(\d+)", r"decoder.laterals.\1"),
        *conv_rules(r"decode_head\.fpn_convs\.(\d+)", r"decoder.smooth.\1"),
        *conv_rules(r"decode_head\.fpn_bottleneck", "decoder.fuse"),
        *aux_rules(model),
        *neck_rules,
        *backbone.rules,
    ]
    return "upernet", options, rules, *backbone.converts
