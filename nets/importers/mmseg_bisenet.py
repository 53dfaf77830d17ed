"""OpenMMLab's FCNHead on BiSeNetV1 or BiSeNetV2: family bisenet."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, take, type_of
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    conv_rules,
    fcn_rules,
    own_head,
    separable_rules,
)
from nets.importers.placing import Rules

HEADS = ("FCNHead",)
BACKBONES = ("BiSeNetV1", "BiSeNetV2")
# Neither hands its norm_cfg, conv_cfg or act_cfg on to its layers.
UNUSED = {"conv_cfg": None, "act_cfg": None}


def _first(section: dict) -> tuple[dict, Rules]:
    """Return options and rules of BiSeNetV1."""
    o = take(
        section,
        UNUSED
        | {
            "backbone_cfg": None, "spatial_channels": (64, 64, 64, 128), "context_channels": (128, 256, 512),
            "align_corners": False, "out_indices": (0, 1, 2),
        },
    )  # fmt: skip
    backbone = translate_backbone(o["backbone_cfg"])
    if backbone.converts:
        raise UserError(f"BiSeNetV1 has the backbone {backbone.name}; a ResNet is needed here")
    options = {
        "version": "v1",
        "backbone": backbone.name,
        "spatial_channels": tuple(o["spatial_channels"]),
        "context_channels": o["context_channels"][0],
        "fusion_channels": section.get("out_channels", 256),
        "norm_gate": True,
        "backbone_options": backbone.options,
    }
    path = r"backbone\.context_path"
    rules: Rules = [(rf"{path}\.{pattern}", ours) for pattern, ours in backbone.rules]
    for i, stride in enumerate((32, 16)):
        arm, place = rf"{path}\.arm{stride}", f"context.refine.{i}"
        rules += conv_rules(rf"{arm}\.conv_layer", f"{place}.conv")
        rules += conv_rules(rf"{arm}\.atten_conv_layer\.1", f"{place}.gate.1")
        rules += conv_rules(rf"{path}\.conv_head{stride}", f"context.convs.{i}")
    rules += conv_rules(rf"{path}\.gap_conv\.1", "context.pooled.1")
    for i in range(4):
        rules += conv_rules(rf"backbone\.spatial_path\.layer{i + 1}", f"spatial.{i}")
    rules += conv_rules(r"backbone\.ffm\.conv1", "fusion.conv")
    rules += conv_rules(r"backbone\.ffm\.conv_atten\.0", "fusion.gate.1")
    return options, rules


def _second(section: dict) -> tuple[dict, Rules]:
    """Return options and rules of BiSeNetV2."""
    o = take(
        section,
        UNUSED
        | {
            "detail_channels": (64, 64, 128), "semantic_channels": (16, 32, 64, 128),
            "semantic_expansion_ratio": 6, "bga_channels": 128, "align_corners": False,
            "out_indices": (0, 1, 2, 3, 4),
        },
    )  # fmt: skip
    options = {
        "version": "v2",
        "backbone": "bisenetv2",
        "detail_channels": tuple(o["detail_channels"]),
        "semantic_channels": tuple(o["semantic_channels"]),
        "expansion": o["semantic_expansion_ratio"],
        "inner_align_corners": bool(o["align_corners"]),
        "extra_activations": True,
        "aggregation_bias": True,
    }
    semantic, ours = r"backbone\.semantic", "backbone.semantic"
    rules: Rules = [
        *conv_rules(r"backbone\.detail\.detail_branch\.(\d)\.(\d)", r"backbone.detail.\1.\2"),
        *conv_rules(rf"{semantic}\.stage1\.conv_first", f"{ours}.0.first"),
        *conv_rules(rf"{semantic}\.stage1\.convs\.(\d)", rf"{ours}.0.convs.\1"),
        *conv_rules(rf"{semantic}\.stage1\.fuse_last", f"{ours}.0.fuse"),
        (rf"{semantic}\.stage4_CEBlock\.gap\.1\.", "backbone.embed.pooled.1."),
        *conv_rules(rf"{semantic}\.stage4_CEBlock\.conv_gap", "backbone.embed.pooled.2"),
        *conv_rules(rf"{semantic}\.stage4_CEBlock\.conv_last", "backbone.embed.last"),
    ]
    for i in (1, 2, 3):
        layer, place = rf"{semantic}\.stage{i + 1}\.(\d)", rf"{ours}.{i}.\1"
        rules += conv_rules(rf"{layer}\.conv1", f"{place}.conv")
        rules += conv_rules(rf"{layer}\.dwconv\.(\d)", rf"{place}.depthwise.\2")
        rules += conv_rules(rf"{layer}\.conv2\.0", f"{place}.project")
        rules += separable_rules(rf"{layer}\.shortcut\.0", f"{place}.shortcut")
    bga, ours = r"backbone\.bga", "backbone.aggregate"
    rules += separable_rules(rf"{bga}\.detail_dwconv\.0", f"{ours}.detail")
    rules += separable_rules(rf"{bga}\.semantic_dwconv\.0", f"{ours}.semantic")
    rules += conv_rules(rf"{bga}\.detail_down\.0", f"{ours}.detail_down.0")
    rules += conv_rules(rf"{bga}\.semantic_conv\.0", f"{ours}.semantic_up")
    rules += conv_rules(rf"{bga}\.conv", f"{ours}.fuse")
    return options, rules


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    section = model["backbone"]
    first = type_of(section) == "BiSeNetV1"
    options, backbone = (_first if first else _second)(section)
    order = tuple(section.get("out_indices", range(3 if first else 5)))
    options |= own_head(last_head(model), order) | {"aux_heads": aux_options(model, order)}
    rules = [*fcn_rules("decode_head", "decoder", "classifier"), *aux_rules(model), *backbone]
    return "bisenet", options, rules
