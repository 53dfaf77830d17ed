"""OpenMMLab's DepthwiseSeparableFCNHead or FCNHead on Fast-SCNN: family fast_scnn."""

from nets.errors import UserError
from nets.importers.mmseg_config import last_head, need, need_relu, norm_eps, take, type_of
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    conv_rules,
    fcn_rules,
    own_head,
    separable_rules,
)
from nets.importers.placing import Rules

HEADS = ("DepthwiseSeparableFCNHead", "FCNHead")
BACKBONES = ("FastSCNN",)
RELU = {"type": "ReLU"}


def _act_between(section: dict, act: dict | str | None) -> bool:
    """Return whether a ReLU stands between the parts of a separable convolution.

    Raises:
        UserError: another activation does.
    """
    if act not in (None, "default") and act.get("type") != "ReLU":
        raise UserError(f"{type_of(section)} has dw_act_cfg={act}; ReLU or None is needed here")
    return act is not None


def _options(section: dict) -> dict:
    o = take(
        section,
        {
            "downsample_dw_channels": (32, 48), "global_in_channels": 64,
            "global_block_channels": (64, 96, 128), "global_block_strides": (2, 2, 1),
            "global_out_channels": 128, "higher_in_channels": 64, "lower_in_channels": 128,
            "fusion_out_channels": 128, "out_indices": (0, 1, 2), "conv_cfg": None, "act_cfg": RELU,
            "align_corners": False, "dw_act_cfg": None,
        },
    )  # fmt: skip
    need_relu(section, o)
    return {
        "backbone": "fast_scnn",
        "down_channels": (*o["downsample_dw_channels"], o["global_in_channels"]),
        "block_channels": tuple(o["global_block_channels"]),
        "strides": tuple(o["global_block_strides"]),
        "coarse_channels": o["global_out_channels"],
        "fused_channels": o["fusion_out_channels"],
        "join_kernel": 3,
        "fusion_dilation": 1,
        "act_between": _act_between(section, o["dw_act_cfg"]),
        "inner_align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps({"norm_cfg": {"type": "BN"}} | section),
    }


def _head(head: dict, order: tuple[int, ...]) -> tuple[dict, Rules]:
    """Return options and rules of the decode head."""
    if type_of(head) == "FCNHead":
        options = own_head(head, order)
        options["head_options"]["separable"] = False
        return options, fcn_rules("decode_head", "decoder", "classifier")
    options = own_head({key: value for key, value in head.items() if key != "dw_act_cfg"}, order)
    need(head, options["head_options"], dilation=1)
    options["head_options"]["act_between"] = _act_between(head, head.get("dw_act_cfg"))
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        *separable_rules(r"decode_head\.convs\.(\d+)", r"decoder.convs.\1"),
        *separable_rules(r"decode_head\.conv_cat", "decoder.join"),
    ]
    return options, rules


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    section = model["backbone"]
    order = tuple(section.get("out_indices", (0, 1, 2)))
    head, head_rules = _head(last_head(model), order)
    down, extractor = r"backbone\.learning_to_downsample", r"backbone\.global_feature_extractor"
    rules = [*head_rules, *aux_rules(model), *conv_rules(rf"{down}\.conv", "backbone.down.0")]
    for i in (1, 2):
        rules += separable_rules(rf"{down}\.dsconv{i}", f"backbone.down.{i}")
    for i in range(3):
        block = rf"{extractor}\.bottleneck{i + 1}\.(\d)\.conv\.(\d)"
        rules += conv_rules(block, rf"backbone.groups.{i}.\1.convs.\2")
    rules += [
        *conv_rules(rf"{extractor}\.ppm\.(\d)\.1", r"backbone.pyramid.pyramid.branches.\1.1"),
        *conv_rules(rf"{extractor}\.out", "backbone.pyramid.join"),
        *conv_rules(r"backbone\.feature_fusion\.dwconv", "backbone.fusion.depthwise"),
        *conv_rules(r"backbone\.feature_fusion\.conv_lower_res", "backbone.fusion.coarse"),
        *conv_rules(r"backbone\.feature_fusion\.conv_higher_res", "backbone.fusion.fine"),
    ]
    options = _options(section) | head | {"aux_heads": aux_options(model, order)}
    return "fast_scnn", options, rules
