"""OpenMMLab's PSPHead: family pspnet."""

from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    psp_head,
    psp_rules,
)

HEADS = ("PSPHead",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    options = {
        "backbone": backbone.name,
        **psp_head(last_head(model)),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    rules = [*psp_rules("decoder"), *aux_rules(model), *backbone.rules]
    return "pspnet", options, rules, *backbone.converts
