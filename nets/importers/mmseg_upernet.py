"""OpenMMLab's UPerHead on a backbone with a pyramid of maps: family upernet."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, uper_head, uper_rules
from nets.importers.placing import Rules
from nets.importers.plain_backbones import PLAIN, as_built, pyramid_neck

HEADS = ("UPerHead",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversion of a configuration's model."""
    backbone = translate_backbone(as_built(model["backbone"], keys))
    head, neck = last_head(model), model.get("neck") or {}
    if neck and type_of(model["backbone"]) not in PLAIN:
        raise UserError("UPerHead stands behind a neck, which is here for a plain transformer only")
    neck_options, neck_rules = pyramid_neck(neck, len(backbone.options.get("blocks", ())))
    options = {
        "backbone": backbone.name,
        **uper_head(head),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options | neck_options,
    }
    rules: Rules = [
        *uper_rules(),
        *aux_rules(model),
        *neck_rules,
        *backbone.rules,
    ]
    return "upernet", options, rules, *backbone.converts
