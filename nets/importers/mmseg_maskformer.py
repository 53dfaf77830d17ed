"""OpenMMLab's MaskFormerHead, MMSegmentation's around MMDetection's: family maskformer."""

from nets.errors import UserError
from nets.importers.attention_weights import split_projections
from nets.importers.mmdet_layers import (
    NO_FUNCTION,
    SINE,
    check_layer_norm,
    feed_forward,
    group_norm,
    layer_rules,
    multi_head_attention,
    need_relu,
    positions,
    query_layers,
    query_rules,
    within,
)
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, take, type_of
from nets.importers.placing import Rules

HEAD = "MaskFormerHead"
HEADS = (HEAD,)
PIXEL_DECODERS = ("PixelDecoder", "TransformerEncoderPixelDecoder")


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    if model.get("neck"):
        raise UserError(f"{HEAD} is needed on the backbone's own maps, without a neck")
    o = take(
        head,
        {
            "feat_channels": None, "out_channels": None, "num_queries": 100, "pixel_decoder": {},
            "enforce_decoder_input_project": False, "transformer_decoder": {}, "positional_encoding": SINE,
            **NO_FUNCTION,
        },
    )  # fmt: skip
    channels = o["feat_channels"]
    if o["out_channels"] != channels:  # its queries have this width too
        raise UserError(
            f"{HEAD} has out_channels={o['out_channels']}; {channels}, its feat_channels, is needed"
        )
    pixel_options, pixel_rates = _pixel_decoder(o["pixel_decoder"], channels)
    query_options, query_rates = query_layers(HEAD, o["transformer_decoder"], channels, layers=6)
    options = {
        "backbone": backbone.name,
        "queries": o["num_queries"],
        "channels": channels,
        "mask_channels": channels,
        # Behind attention layers the map has the queries' width, and is never projected.
        "project": bool(o["enforce_decoder_input_project"]) and "pixel_layers" not in pixel_options,
        # One rate stands for all of them; they are of no account for what is computed after training.
        "dropout": max(pixel_rates + query_rates),
        "positions": positions(o["positional_encoding"], channels, HEAD),
        "backbone_options": backbone.options,
        **pixel_options,
        **query_options,
    }
    return "maskformer", options, [*_rules(), *backbone.rules], split_projections, *backbone.converts


def _pixel_decoder(section: dict, channels: int) -> tuple[dict, list[float]]:
    """Return the builder's options of a PixelDecoder, with attention layers or without, and its rates."""
    section = {"type": PIXEL_DECODERS[0], **section}
    if type_of(section) not in PIXEL_DECODERS:
        raise UserError(
            f"{HEAD} has the pixel decoder {type_of(section)!r}; {' or '.join(PIXEL_DECODERS)} is here"
        )
    known = {"feat_channels": channels, "norm_cfg": None, "act_cfg": {"type": "ReLU"}}
    attends = type_of(section) == PIXEL_DECODERS[1]
    if attends:
        known |= {"encoder": {}, "positional_encoding_cfg": SINE}
    o = take(section, known)
    need_relu(section, o)
    options = {"norm_groups": group_norm(section)}
    if not attends:
        return options, []
    encoder = take(within(HEAD, "encoder", o["encoder"]), {"num_layers": 6, "layer_cfg": {}, "num_cp": -1})
    layer = within(HEAD, "encoder's layer_cfg", encoder["layer_cfg"])
    parts = take(layer, {"self_attn_cfg": {}, "ffn_cfg": {}, "norm_cfg": None})
    check_layer_norm(layer)
    attention = within(HEAD, "encoder's self_attn_cfg", parts["self_attn_cfg"])
    heads, rates = multi_head_attention(attention, channels)
    hidden, rate = feed_forward(within(HEAD, "encoder's ffn_cfg", parts["ffn_cfg"]), channels)
    options |= {
        "pixel_layers": encoder["num_layers"],
        "pixel_heads": heads,
        "pixel_feedforward": hidden,
        "pixel_positions": positions(o["positional_encoding_cfg"], channels, HEAD),
    }
    return options, [*rates, rate]


def _rules() -> Rules:
    pixel, ours = r"decode_head\.pixel_decoder", "pixel_decoder"
    layer, own = rf"{pixel}\.encoder\.layers\.(\d+)", rf"{ours}.layers.\1"
    rules: Rules = [
        (rf"{pixel}\.mask_feature\.", f"{ours}.mask_features."),
        (rf"{pixel}\.encoder_in_proj\.", f"{ours}.project."),
        (rf"{layer}\.self_attn\.attn\.out_proj\.", f"{own}.attention.project."),
        (rf"{layer}\.self_attn\.attn\.", f"{own}.attention."),
        (r"decode_head\.decoder_input_proj\.", "query_decoder.project."),
    ]
    for theirs, place in (
        (r"lateral_convs\.(\d+)", r"laterals.\1"),
        (r"output_convs\.(\d+)", r"smooth.\1"),
        ("last_feat_conv", "deepest"),
        ("encoder_out_proj", "deepest"),
    ):
        rules.append((rf"{pixel}\.{theirs}\.conv\.", rf"{ours}.{place}.conv."))
        rules.append((rf"{pixel}\.{theirs}\.gn\.", rf"{ours}.{place}.norm."))
    return [*rules, *layer_rules(layer, own), *query_rules()]
