"""Mask2FormerForUniversalSegmentation of Hugging Face transformers: family mask2former."""

from torch import Tensor

from nets.importers.attention_weights import split_projections
from nets.importers.huggingface_backbones import count_classes, merge_projections, need, newer, read_backbone
from nets.importers.placing import Rules, rename

# Three maps and four places per map are fixed in their code.
LEVELS, POINTS = 3, 4
BACKBONE = "model.pixel_level_module.encoder."


def read_mask2former(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate Mask2FormerForUniversalSegmentation."""
    need(config, activation_function="relu", common_stride=4, feature_strides=(4, 8, 16, 32))
    name, backbone_options, backbone_rules = read_backbone(config, "Mask2Former")
    options = {
        "bands": config["backbone_config"].get("num_channels", 3),
        "num_classes": count_classes(config),
        "backbone": name,
        "queries": config["num_queries"],
        "channels": config["feature_size"],
        "mask_channels": config["mask_feature_size"],
        "levels": LEVELS,
        "pixel_layers": config["encoder_layers"],
        "pixel_heads": config["num_attention_heads"],
        "pixel_feedforward": config["encoder_feedforward_dim"],
        "points": POINTS,
        "decoder_channels": config["hidden_dim"],
        "decoder_layers": config["decoder_layers"] - 1,  # theirs counts the bare queries
        "heads": config["num_attention_heads"],
        "feedforward": config["dim_feedforward"],
        "pre_norm": config["pre_norm"],
        "project": config["enforce_input_projection"],
        "dropout": float(config["dropout"]),
        "backbone_options": backbone_options,
    }
    encoder = {
        f"backbone.{key.removeprefix(BACKBONE)}": value
        for key, value in state_dict.items()
        if key.startswith(BACKBONE)
    }
    decoders = {key: value for key, value in state_dict.items() if not key.startswith(BACKBONE)}
    weights = rename(merge_projections(newer(encoder)), backbone_rules)
    weights |= rename(split_projections(decoders), _rules())
    return {"name": "mask2former", "options": options}, weights


def _rules() -> Rules:
    pixel, own = r"model\.pixel_level_module\.decoder", "pixel_decoder"
    queries, place = r"model\.transformer_module", "query_decoder"
    layer, ours = rf"{pixel}\.encoder\.layers\.(\d+)", rf"{own}.layers.\1"
    decoder, our = rf"{queries}\.decoder\.layers\.(\d+)", rf"{place}.layers.\1"
    rules: Rules = [
        (r"criterion\.empty_weight", None),  # the losses' own
        (r"class_predictor\.", f"{place}.classifier."),
        (rf"{layer}\.self_attn\.sampling_offsets\.", f"{ours}.attention.offsets."),
        (rf"{layer}\.self_attn\.attention_weights\.", f"{ours}.attention.weights."),
        (rf"{layer}\.self_attn\.value_proj\.", f"{ours}.attention.value."),
        (rf"{layer}\.self_attn\.output_proj\.", f"{ours}.attention.project."),
        (rf"{pixel}\.level_embed", f"{own}.level_encoding"),
        (rf"{pixel}\.input_projections\.", f"{own}.project."),
        (rf"{pixel}\.adapter_1\.", f"{own}.laterals.0."),
        (rf"{pixel}\.layer_1\.", f"{own}.smooth.0."),
        (rf"{pixel}\.mask_projection\.", f"{own}.mask_features."),
        (rf"{decoder}\.(self|cross)_attn\.out_proj\.", rf"{our}.\2_attention.project."),
        (rf"{decoder}\.cross_attn\.", f"{our}.cross_attention."),
        (rf"{queries}\.decoder\.layernorm\.", f"{place}.norm."),
        (rf"{queries}\.queries_embedder\.weight", f"{place}.query_positions"),
        (rf"{queries}\.queries_features\.weight", f"{place}.query_features"),
        (rf"{queries}\.level_embed\.weight", f"{place}.level_embedding"),
        (rf"{queries}\.input_projections\.", f"{place}.project."),
    ]
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
        rules.append((rf"{decoder}\.self_attn\.{letter}_proj\.", f"{our}.self_attention.{name}."))
    for i in range(3):  # the three linear layers stand between ReLUs in ours
        mlp = rf"{queries}\.decoder\.mask_predictor\.mask_embedder\.{i}\.0\."
        rules.append((mlp, f"{place}.mask_embedding.{2 * i}."))
    norms = ((layer, ours, ("self_attn", "final")), (decoder, our, ("cross_attn", "self_attn", "final")))
    for theirs, target, names in norms:
        rules += [(rf"{theirs}\.{name}_layer_norm\.", f"{target}.norms.{i}.") for i, name in enumerate(names)]
        rules.append((rf"{theirs}\.fc1\.", f"{target}.feedforward.expand."))
        rules.append((rf"{theirs}\.fc2\.", f"{target}.feedforward.contract."))
    return rules
