"""OpenMMLab's SegformerHead on MiT: family segformer with its own decoder."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, norm_eps
from nets.importers.mmseg_heads import conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules

HEADS = ("SegformerHead",)
BACKBONES = ("MixVisionTransformer",)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversion of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    o = take_head(head, {"interpolate_mode": "bilinear"})
    if o["interpolate_mode"] != "bilinear":
        raise UserError(
            f"SegformerHead has interpolate_mode={o['interpolate_mode']!r}; bilinear is needed here"
        )
    if list(o["in_index"]) != [0, 1, 2, 3] or model.get("auxiliary_head"):
        raise UserError("SegformerHead is needed on all four maps and without auxiliary heads")
    options = {
        "backbone": backbone.name.removeprefix("mit_"),
        "decoder": "conv",
        "decoder_channels": o["channels"],
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(head),
        **backbone.options,
    }
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        *conv_rules(r"decode_head\.convs\.(\d+)", r"decoder.project.\1"),
        *conv_rules(r"decode_head\.fusion_conv", "decoder.fuse"),
        *backbone.rules,
    ]
    return "segformer", options, rules, backbone.convert
