"""EomtForUniversalSegmentation and EomtDinov3ForUniversalSegmentation of transformers: family eomt."""

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.huggingface_backbones import count_classes, need
from nets.importers.placing import Rules, rename

CHANCES = "attn_mask_probs"
# Biases of query, key and value that are here: DINOv3's keys have none.
DINOV3 = {
    "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True,
    "use_gated_mlp": False,
}  # fmt: skip


def read_eomt(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate EomtForUniversalSegmentation, which is built on DINOv2."""
    large = bool(config["use_swiglu_ffn"])
    mlp_ratio = float(config["mlp_ratio"])
    if large:  # two thirds of the width, rounded up to a multiple of 8, for each of gate and value
        side = (int(int(config["hidden_size"] * mlp_ratio) * 2 / 3) + 7) // 8 * 8
        mlp_ratio = (2 * side + 0.5) / config["hidden_size"]  # it is rounded down again
    options = _options(config, state_dict, "reg_tokens")
    options["backbone"] = "dinov2_giant" if large else "dinov2_large"
    options["backbone_options"]["mlp_ratio"] = mlp_ratio
    return {"name": "eomt", "options": options}, rename(_joined(state_dict), _rules(r"ls\2.gamma"))


def read_eomt_dinov3(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate EomtDinov3ForUniversalSegmentation."""
    need(config, **DINOV3)
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_theta", 100.0) != 100.0 or rope.get("rope_type", "default") != "default":
        raise UserError(f"Hugging Face's eomt_dinov3 has rope_parameters={rope}; theta 100 is needed here")
    options = _options(config, state_dict, "num_reg_tokens") | {"backbone": "dinov3_large"}
    # It is rounded down again.
    options["backbone_options"]["mlp_ratio"] = (config["intermediate_size"] + 0.5) / config["hidden_size"]
    return {"name": "eomt", "options": options}, rename(_joined(state_dict), _rules(r"gamma_\2"))


def _options(config: dict, state_dict: dict[str, Tensor], registers: str) -> dict:
    """Return the builder's options that both have; `registers` is timm's name of these tokens' number."""
    need(config, hidden_act="gelu")
    size, patch = (
        tuple(each) if isinstance(each, (list, tuple)) else (each, each)
        for each in (config["image_size"], config["patch_size"])
    )
    if patch[0] != patch[1]:
        raise UserError(f"Hugging Face's EoMT has patch_size={patch}; square patches are needed here")
    return {
        "bands": config["num_channels"],
        "num_classes": count_classes(config),
        "queries": config["num_queries"],
        "blocks": config["num_blocks"],
        "masked_blocks": count_masked(state_dict[CHANCES]),
        "patch": patch[0],
        "image_size": size,
        "doublings": config["num_upscale_blocks"],
        "drop_path": float(config["drop_path_rate"]),
        "norm_eps": float(config["layer_norm_eps"]),
        "backbone_options": {
            "embed_dim": config["hidden_size"],
            "depth": config["num_hidden_layers"],
            "num_heads": config["num_attention_heads"],
            "pos_drop_rate": float(config["hidden_dropout_prob"]),
            "attn_drop_rate": float(config["attention_dropout"]),
            ("num_reg_tokens" if "rope_parameters" in config else "reg_tokens"): config[
                "num_register_tokens"
            ],
        },
    }


def count_masked(chances: Tensor) -> int:
    """Return how many of the last blocks keep masks in the attention, from each block's chance of them.

    Raises:
        UserError: a chance in between, or masks in an earlier block than in a later one.
    """
    listed = chances.tolist()
    count = sum(chance == 1 for chance in listed)
    if listed != [0.0] * (len(listed) - count) + [1.0] * count:
        raise UserError(
            f"this EoMT has {CHANCES}={listed}, as in the midst of its training, when its answers are "
            "random; zeros, then ones are needed"
        )
    return count


def _joined(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with query, key and value, and with gate and value of an MLP, as one matrix."""
    joined = {}
    for key, value in state_dict.items():
        before, _, kind = key.rpartition(".")
        if ".attention.q_proj." in key:
            parts = [state_dict.get(key.replace(".q_proj.", f".{each}_proj.")) for each in "qkv"]
            whole = before.removesuffix("q_proj")
            if kind == "bias" and parts[1] is None:  # timm has DINOv3's biases apart
                joined |= {f"{whole}q_bias": parts[0], f"{whole}v_bias": parts[2]}
            else:
                joined[f"{whole}qkv.{kind}"] = torch.cat(parts)
        elif ".mlp.gate_proj." in key:
            other = state_dict[key.replace(".gate_proj.", ".up_proj.")]
            joined[key.replace(".gate_proj.", ".fc1.")] = torch.cat([value, other])
        elif ".mlp.up_proj." in key and key.replace(".up_proj.", ".gate_proj.") not in state_dict:
            joined[key.replace(".up_proj.", ".fc1.")] = value
        elif key.startswith("embeddings.position_embeddings."):
            joined[key] = value[None]
        elif not any(each in key for each in (".attention.k_proj.", ".attention.v_proj.", ".mlp.up_proj.")):
            joined[key] = value
    return joined


def _rules(scale: str) -> Rules:
    """Return the rules of all tensors; `scale` is timm's name of a block's layer scales, without number."""
    body, head = "backbone.body", "query_decoder"
    layer, block = r"layers\.(\d+)", rf"{body}.blocks.\1"
    rules: Rules = [
        (r"criterion\.empty_weight", None),  # the losses' own
        (r"embeddings\.mask_token", None),  # of the pretraining
        (CHANCES, "mask_chances"),
        (r"embeddings\.cls_token", f"{body}.cls_token"),
        (r"embeddings\.register_tokens", f"{body}.reg_token"),
        (r"embeddings\.position_embeddings\.weight", f"{body}.pos_embed"),
        (r"embeddings\.patch_embeddings\.(?:projection\.)?", f"{body}.patch_embed.proj."),
        (r"layernorm\.", f"{body}.norm."),
        (rf"{layer}\.attention\.(?:o|out)_proj\.", f"{block}.attn.proj."),
        (rf"{layer}\.attention\.", f"{block}.attn."),
        (rf"{layer}\.layer_scale(\d)\.lambda1", f"{block}.{scale}"),
        (rf"{layer}\.mlp\.(?:down_proj|weights_out)\.", f"{block}.mlp.fc2."),
        (rf"{layer}\.mlp\.weights_in\.", f"{block}.mlp.fc1."),
        (rf"{layer}\.(norm\d|mlp)\.", rf"{block}.\2."),
        (r"query\.weight", f"{head}.query_features"),
        (r"class_predictor\.", f"{head}.classifier."),
    ]
    for i in range(3):  # between the layers of ours stand activations
        rules.append((rf"mask_head\.fc{i + 1}\.", f"{head}.mask_embedding.{2 * i}."))
    for theirs, own in (("conv1", 0), ("conv2", 2), ("layernorm2d", 3)):
        rules.append((rf"upscale_block\.block\.(\d+)\.{theirs}\.", rf"{head}.enlarge.\1.{own}."))
    return rules
