"""OpenMMLab's FCNHead on the context path of an STDC network: family stdc."""

from nets.importers.mmseg_config import aux_sections, last_head, need_relu, need_usual_norm, norm_eps, take
from nets.importers.mmseg_heads import aux_options, conv_rules, fcn_head, fcn_rules, own_head, reorder
from nets.importers.placing import Rules
from nets.models.stdc import COARSE, CONTEXT, FUSED, SPATIAL

HEADS = ("FCNHead",)
BACKBONES = ("STDCContextPathNet",)
ORDER = (SPATIAL, COARSE, CONTEXT, FUSED)
RELU = {"type": "ReLU"}


def _backbone(section: dict) -> dict:
    o = take(
        section,
        {
            "stdc_type": None, "channels": None, "bottleneck_type": None, "act_cfg": None, "num_convs": 4,
            "with_final_conv": False, "conv_cfg": None,
        },
    )  # fmt: skip
    need_relu(section, o)
    return {
        "backbone": f"stdc{str(o['stdc_type'])[-1]}",
        "widths": tuple(o["channels"]),
        "bottleneck": o["bottleneck_type"],
        "num_convs": o["num_convs"],
        "final_conv": bool(o["with_final_conv"]),
        "backbone_norm_eps": norm_eps(section),
    }


def _paths(section: dict) -> dict:
    o = take(
        section,
        {
            "backbone_cfg": None, "last_in_channels": (1024, 512), "out_channels": 128,
            "ffm_cfg": {"in_channels": 512, "out_channels": 256, "scale_factor": 4},
            "upsample_mode": "nearest", "align_corners": None,
        },
    )  # fmt: skip
    fusion = {"type": "FeatureFusionModule"} | o["ffm_cfg"]
    own = take(fusion, {"out_channels": None, "scale_factor": 4, "act_cfg": RELU})
    need_relu(fusion, own)
    need_usual_norm(fusion)
    return {
        "context_channels": o["out_channels"],
        "fusion_channels": own["out_channels"],
        "fusion_reduction": own["scale_factor"],
        "enlarge": o["upsample_mode"],
        "context_align_corners": bool(o["align_corners"]),
        "context_norm_eps": norm_eps({"norm_cfg": {"type": "BN"}} | section),
    }


def net_rules(theirs: str, bottleneck: str) -> Rules:
    """Return the rules of STDCNet, the backbone inside of the context path.

    Args:
        theirs: pattern of what stands in front of its tensors' names, with the dot.
        bottleneck: "cat" or "add".
    """
    block, ours = rf"{theirs}stages\.(\d)\.(\d)", r"backbone.stages.\1.\2"
    rules: Rules = []
    if bottleneck == "add":
        # The halving convolution stands in the file twice, once inside of the first layer.
        rules = [
            (rf"{block}\.layers\.0\.1\.", None),
            *conv_rules(rf"{block}\.layers\.0\.0", rf"{ours}.convs.0"),
        ]
    return [
        *rules,
        *conv_rules(rf"{block}\.layers\.(\d)", rf"{ours}.convs.\3"),
        *conv_rules(rf"{block}\.downsample", f"{ours}.down"),
        *conv_rules(rf"{block}\.skip\.(\d)", rf"{ours}.skip.\3"),
        *conv_rules(rf"{theirs}stages\.(\d)", r"backbone.stages.\1"),
        *conv_rules(rf"{theirs}final_conv", "backbone.final_conv"),
    ]


def _rules(backbone: dict) -> Rules:
    return [
        *net_rules(r"backbone\.backbone\.", backbone["bottleneck"]),
        *conv_rules(r"backbone\.arms\.(\d)\.conv_layer", r"context.refine.\1.conv"),
        *conv_rules(r"backbone\.arms\.(\d)\.atten_conv_layer\.1", r"context.refine.\1.gate.1"),
        *conv_rules(r"backbone\.convs\.(\d)", r"context.convs.\1"),
        *conv_rules(r"backbone\.conv_avg", "context.pooled.1"),
        *conv_rules(r"backbone\.ffm\.conv0", "fusion.conv"),
        (r"backbone\.ffm\.attention\.([12])\.conv\.", r"fusion.gate.\1.conv."),
    ]


def _aux(model: dict) -> tuple[dict, Rules]:
    """Return options and rules of the auxiliary heads, of which one may be for the details."""
    heads = aux_sections(model)
    options, plain = {}, []
    rules: Rules = []
    for i, head in enumerate(heads):
        theirs = rf"auxiliary_head\.{i}" if isinstance(model["auxiliary_head"], list) else "auxiliary_head"
        if head.get("type", "").endswith("STDCHead"):
            own = {key: value for key, value in head.items() if key != "boundary_threshold"}
            options["detail_options"] = reorder(fcn_head(own), ORDER)
            options["detail_classes"] = head["num_classes"]
            rules += [(rf"{theirs}\.(laplacian|fusion)_kernel$", None)]
            rules += fcn_rules(theirs, "detail_head.decoder", "detail_head.classifier")
        else:
            place = f"aux_heads.{len(plain)}"
            rules += fcn_rules(theirs, f"{place}.decoder", f"{place}.classifier")
            plain.append(head)
    return options | {"aux_heads": aux_options({"auxiliary_head": plain}, ORDER)}, rules


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    section = model["backbone"]
    backbone = _backbone(section["backbone_cfg"])
    aux, aux_rules = _aux(model)
    options = {**backbone, **_paths(section), **own_head(last_head(model), ORDER), **aux}
    rules = [*fcn_rules("decode_head", "decoder", "classifier"), *aux_rules, *_rules(backbone)]
    return "stdc", options, rules
