"""OpenMMLab's heads with one context block on a dilated backbone: gcnet, nonlocal_net, danet, psanet, ..."""

from collections.abc import Callable

import torch

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need, type_of
from nets.importers.mmseg_heads import (
    aux_options,
    aux_rules,
    conv_rules,
    map_indices,
    shared_options,
    take_head,
)
from nets.importers.placing import Rules

FCN = {"kernel_size": 3, "concat_input": True, "dilation": 1}
Translated = tuple[str, dict, Rules]


def _shared(head: dict, options: dict) -> dict:
    return shared_options(head, options) | {"in_index": map_indices(head, options)}


def _fcn_like(head: dict, own: dict) -> tuple[dict, dict]:
    """Return the head's options and those of ours that all heads made of two convolutions have."""
    o = take_head(head, FCN | own)
    return o, _shared(head, o) | {key: o[key] for key in FCN}


def _rules(*pairs: tuple[str, str]) -> Rules:
    """Return rules for the head's tensors: pairs that end in a dot are plain layers, else there is a norm."""
    rules: Rules = [(r"decode_head\.conv_seg\.", "classifier.")]
    for theirs, ours in pairs:
        if theirs.endswith("."):
            rules.append((rf"decode_head\.{theirs[:-1]}\.", ours))
        else:
            rules += conv_rules(rf"decode_head\.{theirs}", ours)
    return rules


# FCNHead's two convolutions around the context block, and the one that joins the input.
AROUND = (
    (r"convs\.0", "decoder.convs.0"),
    (r"convs\.1", "decoder.convs.2"),
    ("conv_cat", "decoder.join"),
)
BLOCK = "decoder.convs.1"


def gc(head: dict) -> Translated:
    """GCHead."""
    o, options = _fcn_like(head, {"ratio": 0.25, "pooling_type": "att", "fusion_types": ("channel_add",)})
    fusions = {("add",): "add", ("mul",): "multiply", ("add", "mul"): "both"}
    options |= {
        "ratio": float(o["ratio"]),
        "pooling": {"att": "attention", "avg": "average"}[o["pooling_type"]],
        "fusion": fusions[tuple(sorted(each.removeprefix("channel_") for each in set(o["fusion_types"])))],
    }
    block = (
        (r"gc_block\.conv_mask.", f"{BLOCK}.mask."),
        (r"gc_block\.channel_add_conv.", f"{BLOCK}.add."),
        (r"gc_block\.channel_mul_conv.", f"{BLOCK}.multiply."),
    )
    return "gcnet", options, _rules(*AROUND, *block)


def _non_local(head: dict, block: str, own: dict) -> tuple[dict, dict, Rules]:
    o, options = _fcn_like(head, {"reduction": 2, "use_scale": True, "mode": "embedded_gaussian"} | own)
    options |= {"reduction": o["reduction"], "scaled": bool(o["use_scale"]), "mode": o["mode"]}
    pairs = (
        (rf"{block}\.g\.conv.", f"{BLOCK}.value."),
        (rf"{block}\.theta\.conv.", f"{BLOCK}.query."),
        (rf"{block}\.phi\.conv.", f"{BLOCK}.key."),
        (rf"{block}\.concat_project\.conv.", f"{BLOCK}.compare."),
        (rf"{block}\.conv_out", f"{BLOCK}.project"),
        (rf"{block}\.conv_mask.", f"{BLOCK}.mask."),
    )
    return o, options, _rules(*AROUND, *pairs)


def non_local(head: dict) -> Translated:
    """NLHead."""
    _, options, rules = _non_local(head, "nl_block", {})
    return "nonlocal_net", options, rules


def disentangled(head: dict) -> Translated:
    """DNLHead."""
    o, options, rules = _non_local(head, "dnl_block", {"temperature": 0.05})
    # It divides by numbers in single precision, also where the network has double.
    temperature = torch.tensor(float(o["temperature"])).item()
    if options["scaled"]:
        root = max(options["channels"] // options["reduction"], 1) ** 0.5
        temperature *= torch.tensor(root).item() / root
    return "dnlnet", options | {"temperature": temperature}, rules


def criss_cross(head: dict) -> Translated:
    """CCHead."""
    o, options = _fcn_like(head, {"recurrence": 2})
    block = (
        (r"cca\.gamma\.scale", f"{BLOCK}.weight"),
        *((rf"cca\.{part}_conv.", f"{BLOCK}.{part}.") for part in ("query", "key", "value")),
    )
    rules = [(rf"decode_head\.{block[0][0]}$", block[0][1]), *_rules(*AROUND, *block[1:])]
    return "ccnet", options | {"recurrence": o["recurrence"]}, rules


def interlaced(head: dict) -> Translated:
    """ISAHead."""
    o = take_head(head, {"isa_channels": None, "down_factor": (8, 8)})
    options = _shared(head, o) | {
        "key_channels": o["isa_channels"],
        "group_size": tuple(o["down_factor"]),
    }
    pairs = [("in_conv", "decoder.enter"), ("out_conv", "decoder.join")]
    for theirs, ours in (("global_relation", "far"), ("local_relation", "near")):
        block = f"decoder.context.{ours}"
        pairs += [
            (rf"{theirs}\.key_project\.(\d)", rf"{block}.attention.key.\1"),
            (rf"{theirs}\.query_project\.(\d)", rf"{block}.attention.query.\1"),
            (rf"{theirs}\.value_project.", f"{block}.attention.value."),
            (rf"{theirs}\.output_project", f"{block}.project"),
        ]
    return "isanet", options, _rules(*pairs)


def dynamic_filters(head: dict) -> Translated:
    """DMHead."""
    o = take_head(head, {"filter_sizes": (1, 3, 5, 7), "fusion": False})
    options = _shared(head, o) | {"filter_sizes": tuple(o["filter_sizes"]), "fusion": bool(o["fusion"])}
    theirs, ours = r"dcm_modules\.(\d+)", r"decoder.branches.\1"
    rules = _rules(
        (rf"{theirs}\.filter_gen_conv.", f"{ours}.kernel."),
        (rf"{theirs}\.input_redu_conv", f"{ours}.reduce"),
        (rf"{theirs}\.norm.", f"{ours}.norm."),
        (rf"{theirs}\.fusion_conv", f"{ours}.fuse"),
        ("bottleneck", "decoder.join"),
    )
    return "dmnet", options, rules


def adaptive_context(head: dict) -> Translated:
    """APCHead."""
    o = take_head(head, {"pool_scales": (1, 2, 3, 6), "fusion": True})
    options = _shared(head, o) | {"pool_scales": tuple(o["pool_scales"]), "fusion": bool(o["fusion"])}
    theirs, ours = r"acm_modules\.(\d+)", r"decoder.branches.\1"
    rules = _rules(
        (rf"{theirs}\.pooled_redu_conv", f"{ours}.cells"),
        (rf"{theirs}\.input_redu_conv", f"{ours}.pixels"),
        (rf"{theirs}\.global_info", f"{ours}.scene"),
        (rf"{theirs}\.gla.", f"{ours}.affinity."),
        (rf"{theirs}\.residual_conv", f"{ours}.residual"),
        (rf"{theirs}\.fusion_conv", f"{ours}.fuse"),
        ("bottleneck", "decoder.join"),
    )
    return "apcnet", options, rules


def dual_attention(head: dict) -> Translated:
    """DAHead."""
    o = take_head(head, {"pam_channels": None})
    position = "decoder.position.1"
    rules: Rules = [
        (r"decode_head\.pam\.gamma\.scale$", f"{position}.weight"),
        (r"decode_head\.cam\.gamma\.scale$", "decoder.channel.1.weight"),
        *_rules(
            ("pam_in_conv", "decoder.position.0"),
            ("pam_out_conv", "decoder.position.2"),
            ("cam_in_conv", "decoder.channel.0"),
            ("cam_out_conv", "decoder.channel.2"),
            (r"pam\.query_project.", f"{position}.attention.query.0.conv."),
            (r"pam\.key_project.", f"{position}.attention.key.0.conv."),
            (r"pam\.value_project.", f"{position}.attention.value."),
            ("pam_conv_seg.", "position_classifier."),
            ("cam_conv_seg.", "channel_classifier."),
        ),
    ]
    return "danet", _shared(head, o) | {"key_channels": o["pam_channels"]}, rules


def expectation_maximization(head: dict) -> Translated:
    """EMAHead."""
    o = take_head(
        head,
        {"ema_channels": None, "num_bases": None, "num_stages": None, "concat_input": True, "momentum": 0.1},
    )
    options = _shared(head, o) | {
        "attention_channels": o["ema_channels"],
        "num_bases": o["num_bases"],
        "steps": o["num_stages"],
        "momentum": float(o["momentum"]),
        "concat_input": bool(o["concat_input"]),
    }
    rules: Rules = [
        (r"decode_head\.ema_module\.bases$", "decoder.attention.bases"),
        *_rules(
            ("ema_in_conv", "decoder.enter"),
            (r"ema_mid_conv\.conv.", "decoder.middle."),
            ("ema_out_conv", "decoder.leave"),
            ("bottleneck", "decoder.refine"),
            ("conv_cat", "decoder.join"),
        ),
    ]
    return "emanet", options, rules


def asymmetric(head: dict) -> Translated:
    """ANNHead."""
    o = take_head(head, {"project_channels": None, "query_scales": (1,), "key_pool_scales": (1, 3, 6, 8)})
    if any(scale > 1 for scale in o["query_scales"]) or o["input_transform"] not in (None, "multiple_select"):
        raise UserError(
            f"ANNHead has query_scales={o['query_scales']}, input_transform={o['input_transform']!r}; "
            "scales of 1 and two maps are needed here"
        )
    options = shared_options(head, o) | {
        "in_index": tuple(o["in_index"]),
        "key_channels": o["project_channels"],
        "pool_scales": tuple(o["key_pool_scales"]),
        "query_scales": tuple(o["query_scales"]),
    }
    # Queries and keys of the second attention are the same tensors under two names.
    rules: Rules = [(r"decode_head\.context\.stages\.\d+\.query_project\.", None)]
    pairs = [("bottleneck", "decoder.reduce")]
    for part in ("fusion", "context"):
        theirs, ours = rf"{part}\.stages\.(\d+)", rf"decoder.{part}.attentions.\1"
        pairs += [
            (rf"{theirs}\.key_project", f"{ours}.key.0"),
            (rf"{theirs}\.query_project", f"{ours}.query.0"),
            (rf"{theirs}\.value_project.", f"{ours}.value."),
            (rf"{theirs}\.out_project.", rf"decoder.{part}.project.\1."),
            (rf"{part}\.bottleneck", f"decoder.{part}.join"),
        ]
    return "ann", options, [*rules, *_rules(*pairs)]


def pointwise(head: dict) -> Translated:
    """PSAHead."""
    o = take_head(
        head,
        {
            "mask_size": None, "psa_type": "bi-direction", "compact": False, "shrink_factor": 2,
            "normalization_factor": 1.0, "psa_softmax": True,
        },
    )  # fmt: skip
    need(head, o, compact=False)  # a compact mask fits images of one size only
    mask = tuple(o["mask_size"])
    normalization = o["normalization_factor"]
    options = _shared(head, o) | {
        "mask_size": mask,
        "branches": {"bi-direction": "both"}.get(o["psa_type"], o["psa_type"]),
        "shrink": o["shrink_factor"],
        "softmax": bool(o["psa_softmax"]),
        "normalization": float(mask[0] * mask[1] if normalization is None else normalization),
        "project_padding": 1,
    }
    branches = ("", "_p") if options["branches"] == "both" else ("",)
    pairs = [("proj", "decoder.project"), ("bottleneck", "decoder.join")]
    for i, end in enumerate(branches):
        pairs += [
            (f"reduce{end}", f"decoder.branches.{i}.reduce"),
            (rf"attention{end}\.0", f"decoder.branches.{i}.predict.0"),
            (rf"attention{end}\.1.", f"decoder.branches.{i}.predict.1."),
        ]
    return "psanet", options, _rules(*pairs)


TRANSLATORS: dict[str, Callable[[dict], Translated]] = {
    "ANNHead": asymmetric,
    "APCHead": adaptive_context,
    "CCHead": criss_cross,
    "DAHead": dual_attention,
    "DMHead": dynamic_filters,
    "DNLHead": disentangled,
    "EMAHead": expectation_maximization,
    "GCHead": gc,
    "ISAHead": interlaced,
    "NLHead": non_local,
    "PSAHead": pointwise,
}
HEADS = tuple(TRANSLATORS)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    family, options, rules = TRANSLATORS[type_of(head)](head)
    options |= {
        "backbone": backbone.name,
        "aux_heads": aux_options(model),
        "backbone_options": backbone.options,
    }
    return family, options, [*rules, *aux_rules(model), *backbone.rules], *backbone.converts
