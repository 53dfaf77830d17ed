"""OpenMMLab's PSPHead: family pspnet."""

from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    psp_head,
    psp_rules,
)
from nets.importers.openmmlab import Rules

HEADS = ("PSPHead",)


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    options = {
        "backbone": backbone.name,
        **psp_head(last_head(model)),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    return "pspnet", options, [*psp_rules("decoder"), *aux_rules(model), *backbone.rules]
