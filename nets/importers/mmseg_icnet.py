"""OpenMMLab's FCNHead on ICNet and ICNeck: family icnet."""

from functools import partial

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need_relu, norm_eps, take
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    conv_rules,
    fcn_rules,
    own_head,
    pooled_branch_last,
)
from nets.importers.placing import Rules

HEADS = ("FCNHead",)
BACKBONES = ("ICNet",)
ORDER = (0, 1, 2)
RELU = {"type": "ReLU"}
BATCH_NORM = {"norm_cfg": {"type": "BN"}}


def _branches(section: dict) -> dict:
    o = take(
        section,
        {
            "backbone_cfg": None, "layer_channels": (512, 2048), "light_branch_middle_channels": 32,
            "psp_out_channels": 512, "out_channels": (64, 256, 256), "pool_scales": (1, 2, 3, 6),
            "conv_cfg": None, "act_cfg": RELU, "align_corners": False,
        },
    )  # fmt: skip
    need_relu(section, o)
    light = o["light_branch_middle_channels"]
    fine, middle, coarse = o["out_channels"]
    return {
        "version": "mmseg",
        "fine_channels": (light, light, fine),
        "middle_channels": middle,
        "coarse_channels": coarse,
        "pyramid_channels": o["psp_out_channels"],
        "pool_scales": tuple(o["pool_scales"]),
        "inner_align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(BATCH_NORM | section),
    }


def _fusions(neck: dict) -> dict:
    o = take(neck, {"out_channels": 128, "conv_cfg": None, "act_cfg": RELU, "align_corners": False})
    need_relu(neck, o)
    return {
        "fusion_channels": o["out_channels"],
        "fusion_align_corners": bool(o["align_corners"]),
        "fusion_norm_eps": norm_eps(BATCH_NORM | neck),
    }


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    section = model["backbone"]
    backbone = translate_backbone(section["backbone_cfg"])
    if not isinstance(model.get("neck"), dict):
        raise UserError("ICNet of the checkpoint has no neck; an ICNeck is needed here")
    options = {
        "backbone": backbone.name,
        **_branches(section),
        **_fusions(model["neck"]),
        **own_head(last_head(model), ORDER),
        "aux_heads": aux_options(model, ORDER),
        "backbone_options": backbone.options,
    }
    rules: Rules = [
        *fcn_rules("decode_head", "decoder", "classifier"),
        *aux_rules(model),
        *((rf"backbone\.{pattern}", ours) for pattern, ours in backbone.rules),
        *conv_rules(r"backbone\.psp_modules\.(\d)\.1", r"branches.pyramid.pyramid.branches.\1.1"),
        *conv_rules(r"backbone\.psp_bottleneck", "branches.pyramid.join"),
        *conv_rules(r"backbone\.conv_sub1\.(\d)", r"branches.fine.\1"),
        *conv_rules(r"backbone\.conv_sub2", "branches.middle"),
        *conv_rules(r"backbone\.conv_sub4", "branches.coarse"),
    ]
    for theirs, ours in (("cff_24", "fuse_middle"), ("cff_12", "fuse_fine")):
        rules += conv_rules(rf"neck\.{theirs}\.conv_low", f"branches.{ours}.coarse")
        rules += conv_rules(rf"neck\.{theirs}\.conv_high", f"branches.{ours}.fine")
    grids = len(options["pool_scales"]) * options["pyramid_channels"]
    grids_last = partial(pooled_branch_last, channels=grids, layer="backbone.psp_bottleneck")
    return "icnet", options, rules, grids_last, *backbone.converts
