"""OpenMMLab's SETR heads on a vision transformer: family setr."""

from nets.backbones.vit import VIT_SIZES
from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import aux_sections, last_head, norm_eps, take, type_of
from nets.importers.mmseg_heads import conv_rules, dropout_rate, single_index, take_head
from nets.importers.placing import Rules
from nets.importers.plain_backbones import as_built, vit_options

HEADS = ("SETRUPHead", "SETRMLAHead")
BACKBONES = ("VisionTransformer",)
LAYER_NORM = {"type": "LN", "eps": 1e-6, "requires_grad": True}
UP = {"norm_layer": LAYER_NORM, "num_convs": 1, "up_scale": 4, "kernel_size": 3}


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversion of a configuration's model."""
    backbone = translate_backbone(as_built(model["backbone"], keys))
    size = backbone.name.removeprefix("vit_")
    depth = backbone.options.get("depth") or VIT_SIZES[size].depth
    build = _mla if type_of(last_head(model)) == "SETRMLAHead" else _up
    options, rules = build(model, backbone.options["blocks"], depth - 1)
    options |= {"backbone": size, "backbone_options": vit_options(backbone.options)}
    return "setr", options, [*rules, *backbone.rules], *backbone.converts


def _common(head: dict, o: dict) -> dict:
    return {
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(head),
    }


def _up_head(head: dict, blocks: tuple[int, ...]) -> tuple[int, dict, dict]:
    """Return the block that a head reads, what its convolutions are and what all heads share."""
    o = take_head(head, UP)
    if dict(o["norm_layer"]) | {"requires_grad": True} != LAYER_NORM:
        raise UserError(f"SETRUPHead has norm_layer={o['norm_layer']}; {LAYER_NORM} is needed here")
    convolutions = {key: o[key] for key in ("channels", "num_convs", "up_scale", "kernel_size")}
    return blocks[single_index(head, o)], convolutions, _common(head, o)


def _up(model: dict, blocks: tuple[int, ...], last: int) -> tuple[dict, Rules]:
    block, main, common = _up_head(last_head(model), blocks)
    described = [_up_head(head, blocks) for head in aux_sections(model)]
    auxiliary = [convolutions for _, convolutions, _ in described]
    if block != last or any(each != auxiliary[0] for each in auxiliary):
        raise UserError("SETRUPHead is needed on the last block, with auxiliary heads of one kind")
    if any(shared != common for _, _, shared in described):
        raise UserError("SETR's heads are needed with one dropout, align_corners and norm")
    options = {
        "decoder": "naive" if main["num_convs"] == 1 else "pup",
        "channels": main["channels"],
        "up_convs": main["num_convs"],
        "up_kernel": main["kernel_size"],
        "up_scale": main["up_scale"],
        "aux": bool(auxiliary),
        "layers": tuple(each for each, _, _ in described) or None,
        **common,
    }
    if auxiliary:
        options |= {
            "aux_channels": auxiliary[0]["channels"],
            "aux_convs": auxiliary[0]["num_convs"],
            "aux_kernel": auxiliary[0]["kernel_size"],
            "aux_up_scale": auxiliary[0]["up_scale"],
        }
    rules = _up_rules("decode_head", "head")
    if isinstance(model.get("auxiliary_head"), dict):
        rules += _up_rules("auxiliary_head", "aux_heads.0")
    return options, rules + _up_rules(r"auxiliary_head\.(\d+)", r"aux_heads.\1")


def _up_rules(theirs: str, ours: str) -> Rules:
    convolution = rf"{ours}.convs.\{2 if '(' in theirs else 1}"
    return [
        (rf"{theirs}\.norm\.", f"{ours}.norm."),
        *conv_rules(rf"{theirs}\.up_convs\.(\d+)\.0", convolution),
        (rf"{theirs}\.conv_seg\.", f"{ours}.classifier."),
    ]


def _mla(model: dict, blocks: tuple[int, ...], last: int) -> tuple[dict, Rules]:
    head, neck = last_head(model), model.get("neck") or {}
    o = take_head(head, {"mla_channels": 128, "up_scale": 4})
    n = take(neck, {"out_channels": None, "norm_layer": LAYER_NORM, "act_cfg": None})
    if type_of(neck) != "MLANeck" or dict(n["norm_layer"]) | {"requires_grad": True} != LAYER_NORM:
        raise UserError(f"SETRMLAHead is needed with MLANeck and norm_layer={LAYER_NORM}")
    if (n["act_cfg"] or {}).get("type") != "ReLU" or len(blocks) != 4 or list(o["in_index"]) != [0, 1, 2, 3]:
        raise UserError("MLANeck is needed with ReLU and four maps, all of them used by the head")
    for index, each in enumerate(aux_sections(model)):
        a = take_head(each, {"num_convs": 2, "kernel_size": 3, "concat_input": True})
        if type_of(each) != "FCNHead" or a["num_convs"] or a["concat_input"] or a["in_index"] != index:
            raise UserError("SETRMLAHead is needed with one plain classifier per map as auxiliary heads")
    aux = len(aux_sections(model))
    if aux not in (0, 4):
        raise UserError(f"SETRMLAHead has {aux} auxiliary heads; none or four are needed")
    options = {
        "decoder": "mla",
        "channels": o["mla_channels"],
        "aggregation_channels": neck["out_channels"],
        "up_scale": o["up_scale"],
        "layers": blocks,
        "aux": bool(aux),
        **_common(head, o),
    }
    rules: Rules = [
        (r"neck\.norm\.", "aggregation.norms."),
        *conv_rules(r"neck\.mla\.channel_proj\.(\d+)", r"aggregation.project.\1"),
        *conv_rules(r"neck\.mla\.feat_extract\.(\d+)", r"aggregation.smooth.\1"),
        *conv_rules(r"decode_head\.up_convs\.(\d+)\.(\d+)", r"head.branches.\1.\2"),
        (r"decode_head\.conv_seg\.", "head.classifier."),
        (r"auxiliary_head\.(\d+)\.conv_seg\.", r"aux_heads.\1."),
    ]
    return options, rules
