"""Hugging Face's DPTForSemanticSegmentation: family dpt."""

import re

from torch import Tensor

from nets.importers.huggingface_backbones import count_classes, merge_projections, need, newer
from nets.importers.placing import Rules, rename
from nets.importers.plain_backbones import find_size


def read_dpt(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate DPTForSemanticSegmentation on a plain transformer.

    Its auxiliary head reads the finest fused map, which none here does; its weights, which prediction does
    not need, are left out.

    Raises:
        UserError: a hybrid, or another variant that is not here.
    """
    need(
        config, is_hybrid=False, backbone_config=None, hidden_act="gelu", head_in_index=-1,
        neck_ignore_stages=(),
    )  # fmt: skip
    width, depth = config["hidden_size"], config["num_hidden_layers"]
    layers = tuple(sorted(i % depth for i in config["backbone_out_indices"]))
    size, own = find_size(width, depth, config["num_attention_heads"])
    image = config["image_size"]
    norm = bool(config.get("use_batch_norm_in_fusion_residual", False))
    bias = config.get("use_bias_in_fusion_residual")
    options = {
        "bands": config.get("num_channels", 3),
        "num_classes": count_classes(config),
        "backbone": size,
        "readout": config["readout_type"],
        "layers": layers,
        "patch": config["patch_size"],
        "widths": tuple(config["neck_hidden_sizes"]),
        "channels": config["fusion_hidden_size"],
        "residual_norm": norm,
        "residual_bias": not norm if bias is None else bool(bias),
        "dropout": float(config["semantic_classifier_dropout"]),
        "scales": tuple(float(scale) for scale in config["reassemble_factors"]),
        "backbone_options": {
            **own,
            "image_size": (image, image) if isinstance(image, int) else tuple(image),
            "mlp_ratio": config["intermediate_size"] / width,
            "qkv_bias": "all" if config["qkv_bias"] else "none",
            "dropout": float(config["hidden_dropout_prob"]),
            "attention_dropout": float(config["attention_probs_dropout_prob"]),
            "norm_eps": config["layer_norm_eps"],
        },
    }
    state = {
        re.sub(r"\.attention\.attention\.([qkv])(uery|ey|alue)\.", r".attention.\1_proj.", key): value
        for key, value in state_dict.items()
    }
    rules = _rules(depth, layers)
    return {"name": "dpt", "options": options}, rename(merge_projections(newer(state)), rules)


def _rules(depth: int, layers: tuple[int, ...]) -> Rules:
    block, ours = r"dpt\.encoder\.layer\.(\d+)", r"backbone.body.blocks.\1"
    neck, fusion = r"neck\.reassemble_stage", r"neck\.fusion_stage\.layers"
    rules: Rules = [
        *((rf"dpt\.encoder\.layer\.{i}\.", None) for i in range(layers[-1] + 1, depth)),
        (r"dpt\.(layernorm|pooler)\.", None),
        (r"auxiliary_head\.", None),
        (rf"{fusion}\.0\.residual_layer1\.", None),  # nothing comes before the first fusion
        (r"dpt\.embeddings\.cls_token", "backbone.body.cls_token"),
        (r"dpt\.embeddings\.position_embeddings", "backbone.body.pos_embed"),
        (r"dpt\.embeddings\.patch_embeddings\.projection\.", "backbone.body.patch_embed.proj."),
        (rf"{block}\.attention\.qkv\.", f"{ours}.attn.qkv."),
        (rf"{block}\.attention\.o_proj\.", f"{ours}.attn.proj."),
        (rf"{block}\.layernorm_before\.", f"{ours}.norm1."),
        (rf"{block}\.layernorm_after\.", f"{ours}.norm2."),
        (rf"{block}\.mlp\.", f"{ours}.mlp."),
        (rf"{neck}\.readout_projects\.(\d+)\.0\.", r"backbone.projects.\1."),
        (rf"{neck}\.layers\.(\d+)\.projection\.", r"head.reassemble.\1.0."),
        (rf"{neck}\.layers\.(\d+)\.resize\.", r"head.reassemble.\1.1."),
        (r"neck\.convs\.(\d+)\.", r"head.reassemble.\1.2."),
        (r"head\.head\.0\.", "head.smooth.conv."),
        (r"head\.head\.1\.", "head.smooth.norm."),
        (r"head\.head\.4\.", "head.classifier."),
    ]
    for i in range(len(layers)):  # theirs are numbered from the deepest on
        place = f"head.fusions.{len(layers) - 1 - i}"
        rules.append((rf"{fusion}\.{i}\.projection\.", f"{place}.project."))
        for number, unit in enumerate(("refine", "smooth"), start=1):
            for j, name in enumerate(("first", "second"), start=1):
                layer = rf"{fusion}\.{i}\.residual_layer{number}"
                rules.append((rf"{layer}\.convolution{j}\.", f"{place}.{unit}.{name}.conv."))
                rules.append((rf"{layer}\.batch_norm{j}\.", f"{place}.{unit}.{name}.norm."))
    return rules
