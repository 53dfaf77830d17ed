"""OpenMMLab's Mask2FormerHead, MMSegmentation's around MMDetection's: family mask2former."""

from nets.errors import UserError
from nets.importers.attention_weights import split_projections
from nets.importers.mmdet_layers import (
    NO_FUNCTION,
    SINE,
    check_layer_norm,
    feed_forward,
    group_norm,
    layer_rules,
    need_relu,
    positions,
    query_layers,
    query_rules,
    within,
)
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need, take, type_of
from nets.importers.placing import Rules

HEAD = "Mask2FormerHead"
HEADS = (HEAD,)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    if model.get("neck"):
        raise UserError("Mask2FormerHead is needed on the backbone's own maps, without a neck")
    o = take(
        head,
        {
            "feat_channels": None, "out_channels": None, "num_queries": 100, "num_transformer_feat_level": 3,
            "pixel_decoder": {}, "enforce_decoder_input_project": False, "transformer_decoder": {},
            "positional_encoding": SINE, **NO_FUNCTION,
        },
    )  # fmt: skip
    channels, levels = o["feat_channels"], o["num_transformer_feat_level"]
    pixel_options, pixel_rates = _pixel_decoder(o["pixel_decoder"], channels, levels)
    query_options, query_rates = query_layers(HEAD, o["transformer_decoder"], channels, layers=9)
    options = {
        "backbone": backbone.name,
        "queries": o["num_queries"],
        "channels": channels,
        "mask_channels": o["out_channels"],
        "levels": levels,
        "project": bool(o["enforce_decoder_input_project"]),
        # One rate stands for all of them; they are of no account for what is computed after training.
        "dropout": max(pixel_rates + query_rates),
        "positions": positions(o["positional_encoding"], channels, HEAD),
        "backbone_options": backbone.options,
        **pixel_options,
        **query_options,
    }
    return "mask2former", options, [*_rules(), *backbone.rules], split_projections, *backbone.converts


def _pixel_decoder(section: dict, channels: int, levels: int) -> tuple[dict, list[float]]:
    """Return the builder's options of a MSDeformAttnPixelDecoder and its rates of dropout."""
    section = {"type": "MSDeformAttnPixelDecoder", **section}
    if type_of(section) != "MSDeformAttnPixelDecoder":
        raise UserError(
            f"Mask2FormerHead has the pixel decoder {type_of(section)!r}; MSDeformAttnPixelDecoder is here"
        )
    o = take(
        section,
        {
            "strides": None, "feat_channels": channels, "num_outs": 3, "norm_cfg": None,
            "act_cfg": {"type": "ReLU"}, "encoder": {}, "positional_encoding": SINE,
        },
    )  # fmt: skip
    need_relu(section, o)
    encoder = take(within(HEAD, "encoder", o["encoder"]), {"num_layers": 6, "layer_cfg": {}, "num_cp": -1})
    layer = within(HEAD, "encoder's layer_cfg", encoder["layer_cfg"])
    parts = take(layer, {"self_attn_cfg": {}, "ffn_cfg": {}, "norm_cfg": None})
    check_layer_norm(layer)
    attention = within(HEAD, "encoder's self_attn_cfg", parts["self_attn_cfg"])
    a = take(
        attention,
        {
            "embed_dims": 256, "num_heads": 8, "num_levels": 4, "num_points": 4, "im2col_step": 64,
            "dropout": 0.1, "batch_first": True, "value_proj_ratio": 1.0,
        },
    )  # fmt: skip
    need(attention, a, embed_dims=channels, num_levels=levels, batch_first=True, value_proj_ratio=1.0)
    if levels not in (3, 4) or o["num_outs"] < levels:
        raise UserError(
            f"MSDeformAttnPixelDecoder has num_levels={levels}, num_outs={o['num_outs']}; "
            "3 or 4 levels are needed, and as many outs"
        )
    hidden, rate = feed_forward(within(HEAD, "encoder's ffn_cfg", parts["ffn_cfg"]), channels)
    options = {
        "pixel_layers": encoder["num_layers"],
        "pixel_heads": a["num_heads"],
        "pixel_feedforward": hidden,
        "points": a["num_points"],
        "norm_groups": group_norm(section),
        "pixel_positions": positions(o["positional_encoding"], channels, HEAD),
    }
    return options, [float(a["dropout"]), rate]


def _rules() -> Rules:
    pixel, ours = r"decode_head\.pixel_decoder", "pixel_decoder"
    layer, own = rf"{pixel}\.encoder\.layers\.(\d+)", rf"{ours}.layers.\1"
    rules: Rules = [
        (rf"{layer}\.self_attn\.sampling_offsets\.", f"{own}.attention.offsets."),
        (rf"{layer}\.self_attn\.attention_weights\.", f"{own}.attention.weights."),
        (rf"{layer}\.self_attn\.value_proj\.", f"{own}.attention.value."),
        (rf"{layer}\.self_attn\.output_proj\.", f"{own}.attention.project."),
        (rf"{pixel}\.level_encoding\.weight", f"{ours}.level_encoding"),
        (rf"{pixel}\.mask_feature\.", f"{ours}.mask_features."),
        (r"decode_head\.query_feat\.weight", "query_decoder.query_features"),
        (r"decode_head\.level_embed\.weight", "query_decoder.level_embedding"),
        (r"decode_head\.decoder_input_projs\.", "query_decoder.project."),
    ]
    for theirs, place in (
        ("input_convs", "project"),
        ("lateral_convs", "laterals"),
        ("output_convs", "smooth"),
    ):
        rules.append((rf"{pixel}\.{theirs}\.(\d+)\.conv\.", rf"{ours}.{place}.\1.0."))
        rules.append((rf"{pixel}\.{theirs}\.(\d+)\.gn\.", rf"{ours}.{place}.\1.1."))
    return [*rules, *layer_rules(layer, own), *query_rules()]
