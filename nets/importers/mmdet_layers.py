"""What the heads of MMDetection that MMSegmentation borrows have in common: attention, norms, positions."""

import math

from nets.errors import UserError
from nets.importers.mmseg_config import layer_norm_eps, need, take, type_of
from nets.importers.placing import Rules

# What concerns the losses alone, or is the same for every value.
NO_FUNCTION = dict.fromkeys(
    ("strides", "align_corners", "loss_cls", "loss_mask", "loss_dice", "train_cfg", "test_cfg",
     "num_things_classes", "num_stuff_classes", "in_index")
)  # fmt: skip
SINE = {"num_feats": 128, "normalize": True}


def within(head: str, name: str, section: dict) -> dict:
    """Return a section that has no type with its place for messages."""
    return {"type": f"{head}'s {name}", **section}


def query_layers(head: str, section: dict, channels: int, *, layers: int) -> tuple[dict, list[float]]:
    """Return the builder's options of a transformer decoder and its rates of dropout.

    Args:
        head: named in messages.
        section: the decoder's configuration.
        channels: the width it needs to have.
        layers: their number where the configuration says none.
    """
    section = within(head, "transformer_decoder", section)
    known = {"num_layers": layers, "layer_cfg": {}, "post_norm_cfg": None, "return_intermediate": True}
    o = take(section, known)
    check_layer_norm({"type": "transformer_decoder", "norm_cfg": o["post_norm_cfg"]})
    layer = within(head, "layer_cfg", o["layer_cfg"])
    parts = take(layer, {"self_attn_cfg": {}, "cross_attn_cfg": {}, "ffn_cfg": {}, "norm_cfg": None})
    check_layer_norm(layer)
    rates, heads = [], []
    for name in ("self_attn_cfg", "cross_attn_cfg"):
        number, own = multi_head_attention(within(head, name, parts[name]), channels)
        heads.append(number)
        rates += own
    if heads[0] != heads[1]:
        raise UserError(f"{head} has attentions of {heads} heads; they need the same number here")
    hidden, rate = feed_forward(within(head, "ffn_cfg", parts["ffn_cfg"]), channels)
    return {"decoder_layers": o["num_layers"], "heads": heads[0], "feedforward": hidden}, [*rates, rate]


def group_norm(section: dict) -> int:
    """Return the groups of a section's group norms.

    Raises:
        UserError: another normalisation, or another epsilon than the usual one.
    """
    norm = section.get("norm_cfg", {"type": "GN", "num_groups": 32}) or {}
    if norm.get("type") != "GN" or norm.get("eps", 1e-5) != 1e-5:
        raise UserError(f"{type_of(section)} has norm_cfg={norm or None}; group norm is needed here")
    return norm["num_groups"]


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


def positions(section: dict, channels: int, head: str) -> dict | None:
    """Return the arguments of `sine_positions` that a SinePositionalEncoding differs in; None if in none."""
    section = {"type": "SinePositionalEncoding", **section}
    if type_of(section) != "SinePositionalEncoding":
        raise UserError(f"{head} has {type_of(section)}; SinePositionalEncoding is needed here")
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


def query_rules() -> Rules:
    """Return the names of what decoders of queries have in common."""
    layer, own = r"decode_head\.transformer_decoder\.layers\.(\d+)", r"query_decoder.layers.\1"
    return [
        (rf"{layer}\.(self|cross)_attn\.attn\.out_proj\.", rf"{own}.\2_attention.project."),
        (rf"{layer}\.(self|cross)_attn\.attn\.", rf"{own}.\2_attention."),
        *layer_rules(layer, own),
        (r"decode_head\.transformer_decoder\.post_norm\.", "query_decoder.norm."),
        (r"decode_head\.query_embed\.weight", "query_decoder.query_positions"),
        (r"decode_head\.cls_embed\.", "query_decoder.classifier."),
        (r"decode_head\.mask_embed\.", "query_decoder.mask_embedding."),
    ]


def layer_rules(theirs: str, ours: str) -> Rules:
    """Return the names of a layer's feed-forward and norms."""
    return [
        (rf"{theirs}\.ffn\.layers\.0\.0\.", f"{ours}.feedforward.expand."),
        (rf"{theirs}\.ffn\.layers\.1\.", f"{ours}.feedforward.contract."),
        (rf"{theirs}\.norms\.", f"{ours}.norms."),
    ]
