"""OpenMMLab's SegmenterMaskTransformerHead, and FCNHead as classifier of patches: family segmenter."""

from nets.errors import UserError
from nets.importers import mmseg_fcn
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, layer_norm_eps, need, take, type_of
from nets.importers.mmseg_heads import COMMON, aux_options, aux_rules, dropout_rate, single_index
from nets.importers.placing import Rules
from nets.importers.plain_backbones import PLAIN, as_built, block_rules, vit_options

HEADS = ("SegmenterMaskTransformerHead", "FCNHead")
BACKBONES = PLAIN


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    head, section = last_head(model), as_built(model["backbone"], keys)
    masks = type_of(head) == "SegmenterMaskTransformerHead"
    linear = head.get("num_convs", 2) == 0 and not head.get("concat_input", True)
    if not masks and (not linear or type_of(section) != "VisionTransformer"):
        return mmseg_fcn.translate(model | {"backbone": section}, keys)
    if model.get("neck") or type_of(section) != "VisionTransformer":
        raise UserError(f"{type_of(head)} is needed on a VisionTransformer without a neck")
    backbone = translate_backbone(section)
    read, rules = (_masks if masks else _linear)(head)
    options = {
        "backbone": backbone.name.removeprefix("vit_"),
        **read,
        "unpad": False,
        "layers": backbone.options["blocks"],
        "aux_heads": aux_options(model),
        "patch": backbone.options["patch"],
        "backbone_options": vit_options(backbone.options),
    }
    return "segmenter", options, [*rules, *aux_rules(model), *backbone.rules], *backbone.converts


def _linear(head: dict) -> tuple[dict, Rules]:
    """Return the options and rules of a classifier of patches."""
    # Without convolutions their kernels, dilations and norms have no effect.
    o = take(head, COMMON | {"num_convs": 2, "concat_input": True, "kernel_size": 3, "dilation": 1})
    shared = {"in_index": single_index(head, o), "align_corners": bool(o["align_corners"])}
    return {"decoder": "linear", "dropout": dropout_rate(o), **shared}, [
        (r"decode_head\.conv_seg\.", "head.1.")
    ]


def _masks(head: dict) -> tuple[dict, Rules]:
    """Return the options and rules of a mask transformer."""
    o = take(
        head,
        COMMON | {
            "act_cfg": {"type": "GELU"}, "num_layers": None, "num_heads": None, "embed_dims": None,
            "mlp_ratio": 4, "drop_path_rate": 0.1, "drop_rate": 0.0, "attn_drop_rate": 0.0, "num_fcs": 2,
            "qkv_bias": True,
        },
    )  # fmt: skip
    need(head, o, num_fcs=2, act_cfg={"type": "GELU"})
    options = {
        "decoder": "mask",
        "in_index": single_index(head, o),
        "align_corners": bool(o["align_corners"]),
        "channels": o["embed_dims"],
        "decoder_layers": o["num_layers"],
        "decoder_heads": o["num_heads"],
        "decoder_mlp_ratio": float(o["mlp_ratio"]),
        "decoder_bias": bool(o["qkv_bias"]),
        "decoder_drop_path": float(o["drop_path_rate"]),
        "decoder_dropout": float(o["drop_rate"]),
        "decoder_attention_dropout": float(o["attn_drop_rate"]),
        "decoder_norm_eps": layer_norm_eps(head, 1e-5),
    }
    block, ours = r"decode_head\.layers\.(\d+)", r"head.blocks.\1"
    rules: Rules = [
        (r"decode_head\.cls_emb", "head.class_tokens"),
        (r"decode_head\.dec_proj\.", "head.enter."),
        (r"decode_head\.patch_proj\.", "head.project_patches."),
        (r"decode_head\.classes_proj\.", "head.project_classes."),
        (r"decode_head\.decoder_norm\.", "head.norm."),
        (r"decode_head\.mask_norm\.", "head.mask_norm."),
        *block_rules(block, ours),
    ]
    return options, rules
