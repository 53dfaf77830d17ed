"""MaskFormerForInstanceSegmentation of Hugging Face transformers: family maskformer."""

import re

from torch import Tensor

from nets.errors import UserError
from nets.importers.huggingface_backbones import count_classes, merge_projections, need, newer, read_backbone
from nets.importers.placing import Rules, rename

BACKBONE = "model.pixel_level_module.encoder."
# A Swin of its own, whose tensors have other names than SwinBackbone's.
SWIN = "maskformer-swin"


def read_maskformer(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate MaskFormerForInstanceSegmentation."""
    decoder, backbone = config["decoder_config"], dict(config.get("backbone_config") or {})
    if decoder.get("model_type") != "detr":
        raise UserError(
            f"Hugging Face's MaskFormer has the decoder {decoder.get('model_type')!r}; 'detr' is needed here"
        )
    # With auxiliary_loss their decoder computes another function than the authors'.
    need(decoder, activation_function="relu", auxiliary_loss=False)
    own_swin = any(key.startswith(f"{BACKBONE}model.embeddings.") for key in state_dict)
    if backbone.get("model_type") == SWIN or own_swin:
        stages = ["stage1", "stage2", "stage3", "stage4"]
        backbone |= {"model_type": "swin", "out_features": stages}
    name, backbone_options, backbone_rules = read_backbone({"backbone_config": backbone}, "MaskFormer")
    options = {
        "bands": backbone.get("num_channels", 3),
        "num_classes": count_classes(config),
        "backbone": name,
        "queries": decoder["num_queries"],
        "channels": config["fpn_feature_size"],
        "mask_channels": config["mask_feature_size"],
        "decoder_channels": decoder["d_model"],
        "decoder_layers": decoder["decoder_layers"],
        "heads": decoder["decoder_attention_heads"],
        "feedforward": decoder["decoder_ffn_dim"],
        "dropout": float(decoder["dropout"]),
        "backbone_options": backbone_options,
    }
    encoder = {
        _plain_swin(key.removeprefix(BACKBONE)): value
        for key, value in state_dict.items()
        if key.startswith(BACKBONE)
    }
    decoders = {key: value for key, value in state_dict.items() if not key.startswith(BACKBONE)}
    weights = rename(merge_projections(newer(encoder)), backbone_rules)
    return {"name": "maskformer", "options": options}, weights | rename(decoders, _rules())


def _plain_swin(key: str) -> str:
    """Return a tensor's name as in a SwinBackbone."""
    key = re.sub(r"^model\.", "swin.", key)
    key = re.sub(r"^hidden_states_norms\.(\d)\.", lambda n: f"hidden_states_norms.stage{int(n[1]) + 1}.", key)
    return f"backbone.{key}"


def _rules() -> Rules:
    pixel, own = r"model\.pixel_level_module\.decoder", "pixel_decoder"
    queries, place = r"model\.transformer_module", "query_decoder"
    layer, ours = rf"{queries}\.decoder\.layers\.(\d+)", rf"{place}.layers.\1"
    rules: Rules = [
        (r"criterion\.empty_weight", None),  # the losses' own
        (r"class_predictor\.", f"{place}.classifier."),
        (rf"{pixel}\.mask_projection\.", f"{own}.mask_features."),
        (rf"{pixel}\.fpn\.stem\.0\.", f"{own}.deepest.conv."),
        (rf"{pixel}\.fpn\.stem\.1\.", f"{own}.deepest.norm."),
        (rf"{queries}\.queries_embedder\.weight", f"{place}.query_positions"),
        (rf"{queries}\.input_projection\.", f"{place}.project."),
        (rf"{queries}\.decoder\.layernorm\.", f"{place}.norm."),
        # Also by the names of transformers 4.
        (rf"{layer}\.(?:mlp\.)?fc1\.", f"{ours}.feedforward.expand."),
        (rf"{layer}\.(?:mlp\.)?fc2\.", f"{ours}.feedforward.contract."),
    ]
    for i in range(3):  # theirs counts the laterals from the deepest; ours has ReLUs between the layers
        for theirs, part in (("proj", "laterals"), ("block", "smooth")):
            rules.append((rf"{pixel}\.fpn\.layers\.{i}\.{theirs}\.0\.", f"{own}.{part}.{2 - i}.conv."))
            rules.append((rf"{pixel}\.fpn\.layers\.{i}\.{theirs}\.1\.", f"{own}.{part}.{2 - i}.norm."))
        rules.append((rf"mask_embedder\.{i}\.0\.", f"{place}.mask_embedding.{2 * i}."))
    for theirs, part in (("self", "self"), ("encoder", "cross")):
        rules.append((rf"{layer}\.{theirs}_attn\.(?:o|out)_proj\.", f"{ours}.{part}_attention.project."))
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
            rules.append((rf"{layer}\.{theirs}_attn\.{letter}_proj\.", f"{ours}.{part}_attention.{name}."))
    for i, name in enumerate(("self_attn", "encoder_attn", "final")):
        rules.append((rf"{layer}\.{name}_layer_norm\.", f"{ours}.norms.{i}."))
    return rules
