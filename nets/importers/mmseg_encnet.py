"""OpenMMLab's EncHead on a dilated backbone: family encnet."""

from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import aux_options, aux_rules, conv_rules, shared_options, take_head
from nets.importers.placing import Rules

HEADS = ("EncHead",)


def enc_head(head: dict) -> dict:
    """Return the options of ours that make an OpenMMLab EncHead."""
    known = {"num_codes": 32, "use_se_loss": True, "add_lateral": False, "loss_se_decode": None}
    o = take_head(head, known)
    *laterals, index = o["in_index"]
    return shared_options(head, o) | {
        "in_index": index,
        "lateral_index": tuple(laterals) if o["add_lateral"] else (),
        "codes": o["num_codes"],
        "presence": bool(o["use_se_loss"]),
    }


def enc_rules(decoder: str) -> Rules:
    """Return the rules of an EncHead that is our decoder of that name and our classifiers."""
    module = r"decode_head\.enc_module"
    return [
        (r"decode_head\.conv_seg\.", "classifier."),
        (r"decode_head\.se_layer\.", "presence."),
        *conv_rules(r"decode_head\.bottleneck", f"{decoder}.enter"),
        *conv_rules(r"decode_head\.lateral_convs\.(\d+)", rf"{decoder}.laterals.\1"),
        *conv_rules(r"decode_head\.fusion", f"{decoder}.fuse"),
        *conv_rules(rf"{module}\.encoding_project", f"{decoder}.project"),
        (rf"{module}\.encoding\.0\.", f"{decoder}.encoding."),
        (rf"{module}\.encoding\.1\.", f"{decoder}.norm."),
        (rf"{module}\.fc\.0\.", f"{decoder}.gate."),
    ]


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    options = {
        "backbone": backbone.name,
        **enc_head(last_head(model)),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    rules = [*enc_rules("decoder"), *aux_rules(model), *backbone.rules]
    return "encnet", options, rules, *backbone.converts
