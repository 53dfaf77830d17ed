"""OpenMMLab's FCNHead on a dilated backbone: family fcn."""

from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import aux_options, aux_rules, fcn_head, fcn_rules

HEADS = ("FCNHead",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = fcn_head(last_head(model))
    options = {
        "backbone": backbone.name,
        "version": "dilated",
        **{key: value for key, value in head.items() if key != "index"},
        "in_index": head["index"],
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    rules = [*fcn_rules("decode_head", "decoder", "classifier"), *aux_rules(model), *backbone.rules]
    return "fcn", options, rules, *backbone.converts
