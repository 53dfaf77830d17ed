"""The authors' ViT-Adapter with UPerHead, which is built on MMSegmentation 0.x: family vit_adapter.

https://github.com/czczup/ViT-Adapter, Apache-2.0
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from nets.backbones.vit import VIT_SIZES
from nets.backbones.vit_adapter import PATCH
from nets.errors import UserError
from nets.importers.mmseg_config import last_head, look_up, need, take, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, uper_head, uper_rules
from nets.importers.placing import Rules
from nets.importers.tensor_names import count
from nets.models.vit_adapter import SIZES

HEADS = ("UPerHead",)
BACKBONES = ("ViTAdapter",)
HEAD_WIDTH = 64  # of the transformer's attention, in all sizes
AUX = {
    "type": "FCNHead",
    "in_index": 2,
    "num_convs": 1,
    "concat_input": False,
    "norm_cfg": {"type": "BN"},
}
AUGREG = {
    "type": "SegDataPreProcessor",
    "mean": [127.5] * 3,
    "std": [127.5] * 3,
    "bgr_to_rgb": True,
}


def describe(state_dict: dict[str, Tensor]) -> dict | None:
    """Return the model section that these tensors tell, None where they are of another network.

    They do not show the heads of the attentions, which are those of the authors' configurations, nor windows
    of the transformer's attention, which these have not.
    """
    marks = ("backbone.spm.stem.0.weight", "backbone.interactions.0.injector.gamma")
    if any(key not in state_dict for key in (*marks, "decode_head.fpn_bottleneck.conv.weight")):
        return None
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    model = {
        "backbone": _describe_backbone(shapes),
        "decode_head": {
            "type": "UPerHead",
            "in_index": [0, 1, 2, 3],
            "channels": shapes["decode_head.conv_seg.weight"][1],
            "num_classes": shapes["decode_head.conv_seg.weight"][0],
            "norm_cfg": {"type": "BN"},
        },
    }
    # The weights of 384 pixels are AugReg's, which are trained on bands of -1 to 1.
    if model["backbone"]["pretrain_size"] == 384 and model["backbone"]["in_chans"] == 3:
        model["data_preprocessor"] = AUGREG
    if "auxiliary_head.conv_seg.weight" in shapes:
        classes, channels = shapes["auxiliary_head.conv_seg.weight"][:2]
        model["auxiliary_head"] = AUX | {"channels": channels, "num_classes": classes}
    return model


def _describe_backbone(shapes: dict[str, tuple[int, ...]]) -> dict:
    """Return the backbone's section for the shapes of its tensors."""
    width, bands, patch, _ = shapes["backbone.patch_embed.proj.weight"]
    depth = count(shapes, r"backbone\.blocks\.(\d+)\.")
    interactions = count(shapes, r"backbone\.interactions\.(\d+)\.")
    heads = _usual_heads(width)
    extractor = "backbone.interactions.0.extractor"
    weights = shapes[f"{extractor}.attn.attention_weights.weight"][0]
    if depth % interactions or weights % heads:
        raise UserError(
            f"a ViT-Adapter of {depth} blocks, {interactions} interactions and {weights} sampling weights is "
            "none that its tensors alone tell; only checkpoints with their configuration can be imported"
        )
    run = depth // interactions
    with_ffn = f"{extractor}.ffn.fc1.weight" in shapes
    return {
        "type": "ViTAdapter",
        "in_chans": bands,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // HEAD_WIDTH,
        "mlp_ratio": shapes["backbone.blocks.0.mlp.fc1.weight"][0] / width,
        "layer_scale": "backbone.blocks.0.gamma1" in shapes,
        "pretrain_size": PATCH * math.isqrt(shapes["backbone.pos_embed"][1] - 1),
        "conv_inplane": shapes["backbone.spm.stem.0.weight"][0],
        "n_points": weights // heads,
        "deform_num_heads": heads,
        "deform_ratio": shapes[f"{extractor}.attn.value_proj.weight"][0] / width,
        "with_cffn": with_ffn,
        "cffn_ratio": shapes[f"{extractor}.ffn.fc1.weight"][0] / width if with_ffn else 0.25,
        "use_extra_extractor": any(".extra_extractors." in key for key in shapes),
        "interaction_indexes": [[run * i, run * (i + 1) - 1] for i in range(interactions)],
        # The authors' code adds them to four maps only.
        "add_vit_feature": interactions == 4,
        "drop_path_rate": next(size.drop_path for size in SIZES.values() if size.heads == heads),
    }


def _usual_heads(width: int) -> int:
    """Return the heads of the deformable attention in the authors' configurations."""
    usual = {VIT_SIZES[size.vit].width: size.heads for size in SIZES.values()}
    if width not in usual:
        raise UserError(f"a ViT-Adapter of width {width} is not here; {', '.join(map(str, usual))} are")
    return usual[width]


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversion of a configuration's model."""
    if model.get("neck"):
        raise UserError(
            f"UPerHead stands behind a neck {type_of(model['neck'])!r}, on ViTAdapter without one"
        )
    backbone = _backbone(model["backbone"])
    options = {**backbone, **uper_head(last_head(model)), "aux_heads": aux_options(model)}
    rules = [*uper_rules(), *aux_rules(model), *_backbone_rules()]
    return "vit_adapter", options, rules, _without_class_token(backbone["image_size"])


def _backbone(backbone: dict) -> dict:
    """Return the options of ours that make a ViTAdapter."""
    o = take(
        backbone,
        {
            "pretrain_size": 224, "num_heads": 12, "conv_inplane": 64, "n_points": 4, "deform_num_heads": 6,
            "init_values": 0.0, "interaction_indexes": None, "with_cffn": True, "cffn_ratio": 0.25,
            "deform_ratio": 1.0, "add_vit_feature": True, "use_extra_extractor": True, "img_size": 224,
            "patch_size": 16, "in_chans": 3, "embed_dim": 768, "depth": 12, "mlp_ratio": 4, "qkv_bias": True,
            "drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "layer_scale": True,
            "window_attn": False, "window_size": 14,
        },
    )  # fmt: skip
    need(backbone, o, patch_size=PATCH, mlp_ratio=4, qkv_bias=True)
    sizes = {(size.width, size.depth, size.heads): name for name, size in VIT_SIZES.items()}
    vit = look_up(backbone, sizes, (o["embed_dim"], o["depth"], o["num_heads"]))
    name = next(name for name, size in SIZES.items() if size.vit == vit)
    return {
        "backbone": name,
        "weights": "deit" if SIZES[name].deit and o["pretrain_size"] == SIZES[name].deit[1] else "augreg",
        "image_size": o["pretrain_size"],
        "layer_scale": bool(o["layer_scale"]),
        "windows": _windows(o),
        "interactions": _interactions(backbone, o),
        "prior_channels": o["conv_inplane"],
        "heads": o["deform_num_heads"],
        "points": o["n_points"],
        "value_ratio": float(o["deform_ratio"]),
        "ffn_ratio": float(o["cffn_ratio"]) if o["with_cffn"] else 0.0,
        "extra_extractors": bool(o["use_extra_extractor"]),
        "add_patches": bool(o["add_vit_feature"]),
        "drop_path": float(o["drop_path_rate"]),
        "backbone_dropout": float(o["drop_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
    }


def _windows(options: dict) -> tuple[int, ...]:
    """Return the side of each block's windows, nothing where no block has any."""
    depth = options["depth"]
    chosen, sides = (
        list(value) if isinstance(value, (list, tuple)) else [value] * depth
        for value in (options["window_attn"], options["window_size"])
    )
    windows = tuple(side if windowed else 0 for windowed, side in zip(chosen, sides, strict=True))
    return windows if any(windows) else ()


def _interactions(backbone: dict, options: dict) -> tuple[int, ...]:
    """Return how many blocks each interaction has.

    Raises:
        UserError: they leave blocks out or use one twice.
    """
    spans = options["interaction_indexes"] or []
    runs, start = [], 0
    for first, *_, last in spans:
        if first != start:
            break
        runs.append(last + 1 - first)
        start = last + 1
    if start != options["depth"] or len(runs) != len(spans):
        raise UserError(
            f"{type_of(backbone)} has interaction_indexes={spans}; every block once and in order is needed"
        )
    return tuple(runs)


def _without_class_token(image_size: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Return what drops the position of the class token, which the network does not have."""
    return partial(_drop_first_position, grid=image_size // PATCH)


def _drop_first_position(state_dict: dict[str, Tensor], *, grid: int) -> dict[str, Tensor]:
    key = "backbone.pos_embed"
    positions = state_dict[key]
    if positions.shape[1] != grid**2 + 1:
        raise UserError(
            f"{key} has {positions.shape[1]} positions; {grid**2 + 1} are needed for images of "
            f"{PATCH * grid} pixels"
        )
    return {**state_dict, key: positions[:, 1:]}


def _backbone_rules() -> Rules:
    interaction = r"backbone\.interactions\.(\d+)"
    rules: Rules = []
    for theirs, ours in (
        (rf"{interaction}\.injector", r"backbone.interactions.\1.injector"),
        (rf"{interaction}\.extractor", r"backbone.interactions.\1.extractors.0"),
        (rf"{interaction}\.extra_extractors\.0", r"backbone.interactions.\1.extractors.1"),
        (rf"{interaction}\.extra_extractors\.1", r"backbone.interactions.\1.extractors.2"),
    ):
        rules += [
            (rf"{theirs}\.attn\.sampling_offsets\.", f"{ours}.attention.offsets."),
            (rf"{theirs}\.attn\.attention_weights\.", f"{ours}.attention.weights."),
            (rf"{theirs}\.attn\.value_proj\.", f"{ours}.attention.value."),
            (rf"{theirs}\.attn\.output_proj\.", f"{ours}.attention.project."),
            (rf"{theirs}\.feat_norm\.", f"{ours}.token_norm."),
            (rf"{theirs}\.ffn\.fc1\.", f"{ours}.ffn.expand."),
            (rf"{theirs}\.ffn\.dwconv\.dwconv\.", f"{ours}.ffn.mix."),
            (rf"{theirs}\.ffn\.fc2\.", f"{ours}.ffn.contract."),
            (rf"{theirs}\.", f"{ours}."),
        ]
    for i in range(3):
        rules += _numbered(
            rf"backbone\.spm\.stem\.{3 * i}\.", rf"backbone\.spm\.stem\.{3 * i + 1}\.", f"stem.{i}"
        )
        rules += _numbered(
            rf"backbone\.spm\.conv{i + 2}\.0\.", rf"backbone\.spm\.conv{i + 2}\.1\.", f"halvings.{i}"
        )
    for i in range(4):
        rules += [
            (rf"backbone\.spm\.fc{i + 1}\.", f"backbone.prior.project.{i}."),
            (rf"backbone\.norm{i + 1}\.", f"backbone.norms.{i}."),
        ]
    block = r"backbone\.blocks\.(\d+)"
    return [
        *rules,
        (r"backbone\.level_embed$", "backbone.level_embedding"),
        (r"backbone\.up\.", "backbone.up."),
        (rf"{block}\.gamma(\d)", r"backbone.body.blocks.\1.ls\2.gamma"),
        (rf"{block}\.", r"backbone.body.blocks.\1."),
        (r"backbone\.(patch_embed\.proj\.|pos_embed)", r"backbone.body.\1"),
    ]


def _numbered(conv: str, norm: str, ours: str) -> Rules:
    return [(conv, f"backbone.prior.{ours}.conv."), (norm, f"backbone.prior.{ours}.norm.")]
