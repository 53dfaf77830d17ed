"""OpenMMLab's FPNHead behind the neck FPN: family sem_fpn."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need, norm_eps, take, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules

HEADS = ("FPNHead",)


def _pyramid(neck: dict, maps: int) -> dict:
    """Return the options of ours that make an OpenMMLab FPN."""
    o = take(
        neck,
        {
            "num_outs": None, "start_level": 0, "end_level": -1, "add_extra_convs": False,
            "extra_convs_on_inputs": False, "relu_before_extra_convs": False, "no_norm_on_lateral": False,
            "conv_cfg": None, "act_cfg": None, "upsample_cfg": {"mode": "nearest"},
        },
    )  # fmt: skip
    norm = neck.get("norm_cfg")
    need(neck, o, num_outs=maps, start_level=0, conv_cfg=None, act_cfg=None, upsample_cfg={"mode": "nearest"})
    if type_of(neck) != "FPN" or o["end_level"] not in (-1, maps) or (norm and o["no_norm_on_lateral"]):
        raise UserError("FPNHead is needed behind the neck FPN with all maps and one norm for all layers")
    if norm and norm_eps(neck) != 1e-5:
        raise UserError(f"FPN has norm_cfg={norm}; eps=1e-5 is needed here")
    return {"pyramid_channels": neck["out_channels"], "pyramid_norm": bool(norm)}


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    o = take_head(head, {"feature_strides": None})
    strides = tuple(o["feature_strides"])
    if list(o["in_index"]) != [0, 1, 2, 3] or len(strides) != 4:
        raise UserError(f"FPNHead has in_index={o['in_index']}; all four maps of a pyramid are needed")
    options = {
        "backbone": backbone.name,
        **_pyramid(model.get("neck") or {}, len(strides)),
        "channels": o["channels"],
        "norm": "batch",
        "feature_strides": strides,
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(head),
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        *conv_rules(r"neck\.lateral_convs\.(\d+)", r"decoder.pyramid.laterals.\1"),
        *conv_rules(r"neck\.fpn_convs\.(\d+)", r"decoder.pyramid.smooth.\1"),
    ]
    # Between two convolutions stands a module that enlarges.
    for i in range(len(strides)):
        rules += [
            rule
            for j in range(5)
            for rule in conv_rules(rf"decode_head\.scale_heads\.{i}\.{2 * j}", f"decoder.levels.{i}.{j}")
        ]
    return "sem_fpn", options, [*rules, *aux_rules(model), *backbone.rules], *backbone.converts
