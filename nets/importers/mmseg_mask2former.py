"""OpenMMLab's Mask2FormerHead, MMSegmentation's around MMDetection's: family mask2former."""

import math

from nets.errors import UserError
from nets.importers.attention_weights import split_projections
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, layer_norm_eps, need, take, type_of
from nets.importers.placing import Rules

HEADS = ("Mask2FormerHead",)

# What concerns the losses alone, or is the same for every value.
NO_FUNCTION = dict.fromkeys(
    ("strides", "align_corners", "loss_cls", "loss_mask", "loss_dice", "train_cfg", "test_cfg",
     "num_things_classes", "num_stuff_classes", "in_index")
)  # fmt: skip
SINE = {"num_feats": 128, "normalize": True}


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
    query_options, query_rates = _query_decoder(o["transformer_decoder"], channels)
    options = {
        "backbone": backbone.name,
        "queries": o["num_queries"],
        "channels": channels,
        "mask_channels": o["out_channels"],
        "levels": levels,
        "project": bool(o["enforce_decoder_input_project"]),
        # One rate stands for all of them; they are of no account for what is computed after training.
        "dropout": max(pixel_rates + query_rates),
        "positions": positions(o["positional_encoding"], channels),
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
    norm = {"type": "GN", "num_groups": 32}
    o = take(
        section,
        {
            "strides": None, "feat_channels": channels, "num_outs": 3, "norm_cfg": norm,
            "act_cfg": {"type": "ReLU"}, "encoder": {}, "positional_encoding": SINE,
        },
    )  # fmt: skip
    norm = o["norm_cfg"] or {}
    if norm.get("type") != "GN" or norm.get("eps", 1e-5) != 1e-5:
        raise UserError(f"MSDeformAttnPixelDecoder has norm_cfg={norm or None}; group norm is needed here")
    need_relu(section, o)
    encoder = take(_named("encoder", o["encoder"]), {"num_layers": 6, "layer_cfg": {}, "num_cp": -1})
    layer = _named("encoder's layer_cfg", encoder["layer_cfg"])
    parts = take(layer, {"self_attn_cfg": {}, "ffn_cfg": {}, "norm_cfg": None})
    check_layer_norm(layer)
    attention = _named("encoder's self_attn_cfg", parts["self_attn_cfg"])
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
    hidden, rate = feed_forward(_named("encoder's ffn_cfg", parts["ffn_cfg"]), channels)
    options = {
        "pixel_layers": encoder["num_layers"],
        "pixel_heads": a["num_heads"],
        "pixel_feedforward": hidden,
        "points": a["num_points"],
        "norm_groups": norm["num_groups"],
        "pixel_positions": positions(o["positional_encoding"], channels),
    }
    return options, [float(a["dropout"]), rate]


def _query_decoder(section: dict, channels: int) -> tuple[dict, list[float]]:
    """Return the builder's options of a Mask2FormerTransformerDecoder and its rates of dropout."""
    section = _named("transformer_decoder", section)
    o = take(section, {"num_layers": 9, "layer_cfg": {}, "post_norm_cfg": None, "return_intermediate": True})
    check_layer_norm({"type": "transformer_decoder", "norm_cfg": o["post_norm_cfg"]})
    layer = _named("layer_cfg", o["layer_cfg"])
    parts = take(layer, {"self_attn_cfg": {}, "cross_attn_cfg": {}, "ffn_cfg": {}, "norm_cfg": None})
    check_layer_norm(layer)
    rates, heads = [], []
    for name in ("self_attn_cfg", "cross_attn_cfg"):
        number, own = multi_head_attention(_named(name, parts[name]), channels)
        heads.append(number)
        rates += own
    if heads[0] != heads[1]:
        raise UserError(f"Mask2FormerHead has attentions of {heads} heads; they need the same number here")
    hidden, rate = feed_forward(_named("ffn_cfg", parts["ffn_cfg"]), channels)
    return {"decoder_layers": o["num_layers"], "heads": heads[0], "feedforward": hidden}, [*rates, rate]


def multi_head_attention(section: dict, channels: int) -> tuple[int, list[float]]:
    """Return the heads of a MultiheadAttention and its rates of dropout."""
    o = take(
        section,
        {
            "embed_dims": 256, "num_heads": 8, "attn_drop": 0.0, "proj_drop": 0.0, "dropout": 0.0,
            "dropout_layer": None, "batch_first": True,
        },
    )  # fmt: skip
    need(section, o, embed_dims=channels, batch_first=True)
    return o["num_heads"], [_last_rate(o), *(float(o[key]) for key in ("attn_drop", "proj_drop", "dropout"))]


def feed_forward(section: dict, channels: int) -> tuple[int, float]:
    """Return the hidden width of an FFN and its rate of dropout."""
    o = take(
        section,
        {
            "embed_dims": 256, "feedforward_channels": 1024, "num_fcs": 2, "act_cfg": {"type": "ReLU"},
            "ffn_drop": 0.0, "dropout_layer": None, "add_identity": True, "layer_scale_init_value": 0.0,
        },
    )  # fmt: skip
    need(section, o, embed_dims=channels, num_fcs=2, add_identity=True, layer_scale_init_value=0.0)
    need_relu(section, o)
    return o["feedforward_channels"], max(_last_rate(o), float(o["ffn_drop"]))


def _last_rate(options: dict) -> float:
    """Return the rate of the dropout before a sum."""
    return float((options["dropout_layer"] or {}).get("drop_prob", 0.0))


def positions(section: dict, channels: int) -> dict | None:
    """Return the arguments of `sine_positions` that a SinePositionalEncoding differs in; None if in none."""
    section = {"type": "SinePositionalEncoding", **section}
    if type_of(section) != "SinePositionalEncoding":
        raise UserError(f"Mask2FormerHead has {type_of(section)}; SinePositionalEncoding is needed here")
    known = {"temperature": 10000, "normalize": False, "scale": 2 * math.pi, "eps": 1e-6, "offset": 0.0}
    o = take(section, {"num_feats": None, **known})
    need(section, o, num_feats=channels // 2)
    usual = known | {"normalize": True}
    return {key: o[key] for key in known if o[key] != usual[key]} or None


def need_relu(section: dict, options: dict) -> None:
    """Check that a section's activation is ReLU."""
    if (options["act_cfg"] or {}).get("type") != "ReLU":
        raise UserError(f"{type_of(section)} has act_cfg={options['act_cfg']}; ReLU is needed here")


def check_layer_norm(section: dict) -> None:
    """Check that a section has the usual layer norm."""
    if layer_norm_eps(section, 1e-5) != 1e-5:
        raise UserError(f"{type_of(section)} has norm_cfg={section['norm_cfg']}; eps 1e-5 is needed here")


def _named(name: str, section: dict) -> dict:
    """Return a section that has no type with its place for messages."""
    return {"type": f"Mask2FormerHead's {name}", **section}


def _rules() -> Rules:
    pixel, ours = r"decode_head\.pixel_decoder", "pixel_decoder"
    layer, own = rf"{pixel}\.encoder\.layers\.(\d+)", rf"{ours}.layers.\1"
    decoder, queries = r"decode_head\.transformer_decoder\.layers\.(\d+)", r"query_decoder.layers.\1"
    rules: Rules = [
        (rf"{layer}\.self_attn\.sampling_offsets\.", f"{own}.attention.offsets."),
        (rf"{layer}\.self_attn\.attention_weights\.", f"{own}.attention.weights."),
        (rf"{layer}\.self_attn\.value_proj\.", f"{own}.attention.value."),
        (rf"{layer}\.self_attn\.output_proj\.", f"{own}.attention.project."),
        (rf"{pixel}\.level_encoding\.weight", f"{ours}.level_encoding"),
        (rf"{pixel}\.mask_feature\.", f"{ours}.mask_features."),
        (rf"{decoder}\.(self|cross)_attn\.attn\.out_proj\.", rf"{queries}.\2_attention.project."),
        (rf"{decoder}\.(self|cross)_attn\.attn\.", rf"{queries}.\2_attention."),
        (r"decode_head\.transformer_decoder\.post_norm\.", "query_decoder.norm."),
        (r"decode_head\.query_embed\.weight", "query_decoder.query_positions"),
        (r"decode_head\.query_feat\.weight", "query_decoder.query_features"),
        (r"decode_head\.level_embed\.weight", "query_decoder.level_embedding"),
        (r"decode_head\.decoder_input_projs\.", "query_decoder.project."),
        (r"decode_head\.cls_embed\.", "query_decoder.classifier."),
        (r"decode_head\.mask_embed\.", "query_decoder.mask_embedding."),
    ]
    for theirs, place in (
        ("input_convs", "project"),
        ("lateral_convs", "laterals"),
        ("output_convs", "smooth"),
    ):
        rules.append((rf"{pixel}\.{theirs}\.(\d+)\.conv\.", rf"{ours}.{place}.\1.0."))
        rules.append((rf"{pixel}\.{theirs}\.(\d+)\.gn\.", rf"{ours}.{place}.\1.1."))
    for theirs, place in ((layer, own), (decoder, queries)):
        rules.append((rf"{theirs}\.ffn\.layers\.0\.0\.", f"{place}.feedforward.expand."))
        rules.append((rf"{theirs}\.ffn\.layers\.1\.", f"{place}.feedforward.contract."))
        rules.append((rf"{theirs}\.norms\.", f"{place}.norms."))
    return rules
