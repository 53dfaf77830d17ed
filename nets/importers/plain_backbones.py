"""OpenMMLab's plain transformers (VisionTransformer, BEiT, MAE) and their necks in our words.

`vit`, `beit` and `mae` are used through `mmseg_backbones`; they give maps of one size, as without a neck.
"""

from functools import partial

from torch import Tensor

from nets.backbones.plain_transformer import SCALES
from nets.backbones.vit import VIT_SIZES
from nets.errors import UserError
from nets.importers.mmseg_config import layer_norm_eps, need, norm_eps, take, type_of
from nets.importers.mmseg_heads import conv_rules
from nets.importers.placing import Rules
from nets.importers.pyramid_backbones import Translated

PLAIN = ("VisionTransformer", "BEiT", "MAE")
# What all have, with their defaults.
COMMON = {
    "img_size": 224, "patch_size": 16, "embed_dims": 768, "num_layers": 12, "num_heads": 12, "mlp_ratio": 4,
    "out_indices": -1, "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "act_cfg": {"type": "GELU"},
    "patch_norm": False, "final_norm": False, "num_fcs": 2,
}  # fmt: skip
PADDINGS = {"corner": "corner", "same": "same", 0: "none"}
HALVED = (2, 1, 0.5, 0.25)


def vit(backbone: dict) -> Translated:
    """VisionTransformer; `blocks` among the options are those whose maps it gives."""
    o = take(
        backbone,
        COMMON | {
            "qkv_bias": True, "drop_rate": 0.0, "with_cls_token": True, "output_cls_token": False,
            "pre_norm": False, "interpolate_mode": "bicubic", "patch_pad": "corner", "patch_bias": False,
            "frozen_exclude": None, "out_shape": "NCHW",
        },
    )  # fmt: skip
    need(backbone, o, output_cls_token=False, out_shape="NCHW")
    if o["patch_pad"] not in PADDINGS or o["interpolate_mode"] not in ("bicubic", "bilinear"):
        raise UserError(
            f"VisionTransformer has patch_pad={o['patch_pad']!r} and "
            f"interpolate_mode={o['interpolate_mode']!r}; "
            f"{', '.join(map(repr, PADDINGS))} and 'bicubic', 'bilinear' are here"
        )
    name, options = _common(backbone, o, "vit", {size: f"vit_{size}" for size in VIT_SIZES})
    options |= {
        "padding": PADDINGS[o["patch_pad"]],
        "patch_bias": bool(o["patch_bias"]),
        "class_token": bool(o["with_cls_token"]),
        "pre_norm": bool(o["pre_norm"]),
        "qkv_bias": "all" if o["qkv_bias"] else "none",
        "project_bias": bool(o["qkv_bias"]),
        "position_interpolation": o["interpolate_mode"],
        "dropout": float(o["drop_rate"]),
    }
    block, ours = r"backbone\.layers\.(\d+)", r"backbone.body.blocks.\1"
    rules: Rules = [
        *_common_rules(o, options),
        *block_rules(block, ours),
        (r"backbone\.ln_pre\.", "backbone.body.norm_pre."),
    ]
    return name, options, rules, partial(_seen, class_token=options["class_token"])


def block_rules(theirs: str, ours: str) -> Rules:
    """Return the rules of a ViT's block: the checkpoint's pattern with one group, and our name."""
    return [
        (rf"{theirs}\.attn\.attn\.in_proj_", f"{ours}.attn.qkv."),
        (rf"{theirs}\.attn\.attn\.out_proj\.", f"{ours}.attn.proj."),
        *_feed_rules(theirs, ours),
    ]


def _feed_rules(theirs: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.ln(\d)\.", rf"{ours}.norm\2."),
        (rf"{theirs}\.ffn\.layers\.0\.0\.", f"{ours}.mlp.fc1."),
        (rf"{theirs}\.ffn\.layers\.1\.", f"{ours}.mlp.fc2."),
    ]


def _seen(state_dict: dict[str, Tensor], *, class_token: bool) -> dict[str, Tensor]:
    """Return the weights without the class token where no one sees it."""
    if class_token:
        return state_dict
    kept = {key: value for key, value in state_dict.items() if key != "backbone.cls_token"}
    return kept | {"backbone.pos_embed": state_dict["backbone.pos_embed"][:, 1:]}


def beit(backbone: dict) -> Translated:
    """BEiT."""
    return _relative(backbone, {"init_values": 0.1, "qv_bias": True})


def mae(backbone: dict) -> Translated:
    """MAE: a BEiT with a position embedding and a bias of all projections."""
    return _relative(backbone, {"init_values": 0.1})


def _relative(backbone: dict, own: dict) -> Translated:
    o = take(backbone, COMMON | own)
    kind = type_of(backbone).lower()
    name, options = _common(backbone, o, kind, {size: f"{kind}_{size[0]}" for size in ("base", "large")})
    biases = {None: "all", True: "query_value", False: "none"}
    options |= {
        "padding": "fit",  # theirs take images of these patches only
        "patch_bias": True,
        "layer_scale": float(o["init_values"]) or 1.0,  # where it starts; zero would be none
        "qkv_bias": biases[o.get("qv_bias")],
    }
    block, ours = r"backbone\.layers\.(\d+)", r"backbone.body.blocks.\1"
    rules: Rules = [
        *_common_rules(o, options),
        (rf"{block}\.attn\.relative_position_index", None),
        (rf"{block}\.attn\.([qv])_bias", rf"{ours}.attn.qkv.\2_bias"),
        (rf"{block}\.attn\.", rf"{ours}.attn."),
        (rf"{block}\.gamma_(\d)", rf"{ours}.ls\2.gamma"),
        *_feed_rules(block, ours),
    ]
    return name, options, rules, None


def _common(backbone: dict, o: dict, kind: str, names: dict[str, str]) -> tuple[str, dict]:
    """Return our name and the options that all plain transformers have."""
    need(backbone, o, num_fcs=2, act_cfg={"type": "GELU"})
    indices = o["out_indices"] if isinstance(o["out_indices"], (list, tuple)) else [o["out_indices"]]
    if indices == [-1]:
        indices = [o["num_layers"] - 1]
    if not indices or any(not 0 <= i < o["num_layers"] for i in indices):
        raise UserError(f"{type_of(backbone)} has out_indices={o['out_indices']} of {o['num_layers']} layers")
    image = o["img_size"] if isinstance(o["img_size"], (list, tuple)) else [o["img_size"]]
    options = {
        "neck": "none",
        "crop": False,
        "blocks": tuple(sorted(set(indices))),
        "image_size": (image[0], image[-1]),
        "patch": o["patch_size"],
        "patch_norm": bool(o["patch_norm"]),
        "final_norm": bool(o["final_norm"]),
        "mlp_ratio": float(o["mlp_ratio"]),
        "drop_path": float(o["drop_path_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
        "norm_eps": layer_norm_eps(backbone, 1e-5),
    }
    size, own = find_size(o["embed_dims"], o["num_layers"], o["num_heads"], among=tuple(names))
    return names[size], options | own


def find_size(
    width: int, depth: int, heads: int, among: tuple[str, ...] = tuple(VIT_SIZES)
) -> tuple[str, dict]:
    """Return the size of a ViT, or "base" and the arguments of `ViT` that make another."""
    for name in among:
        size = VIT_SIZES[name]
        if (size.width, size.depth, size.heads) == (width, depth, heads):
            return name, {}
    return "base", {"width": width, "depth": depth, "heads": heads}


def _common_rules(o: dict, options: dict) -> Rules:
    last = options["blocks"][-1]
    behind = "backbone.body.norm." if last + 1 == o["num_layers"] else None
    return [
        # Blocks behind the last map do nothing.
        *((rf"backbone\.layers\.{i}\.", None) for i in range(last + 1, o["num_layers"])),
        (r"backbone\.patch_embed\.projection\.", "backbone.body.patch_embed.proj."),
        (r"backbone\.patch_embed\.norm\.", "backbone.body.patch_embed.norm."),
        (r"backbone\.ln1\.", behind),
        (r"backbone\.(cls_token|pos_embed)", r"backbone.body.\1"),
    ]


def as_built(backbone: dict, keys: list[str]) -> dict:
    """Return a backbone's section with what the tensors tell.

    Early versions built ViT's projection of the patches with a bias, whatever the configuration says.
    """
    if type_of(backbone) != "VisionTransformer":
        return backbone
    return backbone | {"patch_bias": "backbone.patch_embed.projection.bias" in keys}


def vit_options(options: dict) -> dict:
    """Return the arguments of `ViT` among those of a backbone alone, but for its blocks."""
    return {key: value for key, value in options.items() if key not in ("neck", "crop", "blocks")}


def pyramid_neck(neck: dict, maps: int) -> tuple[dict, Rules]:
    """Return the options of `PlainTransformer` and the rename rules of a neck behind a plain transformer.

    Args:
        neck: its section, empty where there is none.
        maps: number of maps that the backbone gives.

    Raises:
        UserError: another neck, or one that does not fit.
    """
    if not neck:
        return {}, []
    necks = {"MultiLevelNeck": _resized, "Feature2Pyramid": _deconvolved}
    if type_of(neck) not in necks:
        raise UserError(
            f"the neck {type_of(neck)!r} is not here behind a transformer; {', '.join(necks)} are"
        )
    return necks[type_of(neck)](neck, maps)


def _resized(neck: dict, maps: int) -> tuple[dict, Rules]:
    o = take(neck, {"scales": (0.5, 1, 2, 4), "act_cfg": None})
    norm = neck.get("norm_cfg")
    if maps not in (1, len(o["scales"])) or (o["act_cfg"] or {"type": "ReLU"}).get("type") != "ReLU":
        raise UserError(
            f"MultiLevelNeck has scales={o['scales']}, act_cfg={o['act_cfg']} for {maps} maps; a scale for "
            "each and ReLU or nothing are needed"
        )
    details = {"channels": neck["out_channels"], "norm": bool(norm), "act": bool(o["act_cfg"])}
    if norm:
        details["norm_eps"] = norm_eps(neck)
    rules: Rules = [
        *conv_rules(r"neck\.lateral_convs\.(\d+)", r"backbone.neck.laterals.\1"),
        *conv_rules(r"neck\.convs\.(\d+)", r"backbone.neck.smooth.\1"),
    ]
    return {"neck": "resized", "scales": tuple(o["scales"]), "neck_options": details}, rules


def _deconvolved(neck: dict, maps: int) -> tuple[dict, Rules]:
    o = take(neck, {"embed_dim": None, "rescales": SCALES})
    scales = tuple(o["rescales"])
    if scales not in (SCALES, HALVED) or maps != len(scales):
        raise UserError(
            f"Feature2Pyramid has rescales={scales} for {maps} maps; {SCALES} or {HALVED} is needed"
        )
    eps = norm_eps({"norm_cfg": {"type": "SyncBN"}} | neck)
    rules: Rules = [
        (r"neck\.upsample_4x\.", "backbone.neck.0."),
        (r"neck\.upsample_2x\.", f"backbone.neck.{scales.index(2)}."),
    ]
    return {"neck": "deconvolved", "scales": scales, "neck_options": {"norm_eps": eps}}, rules
