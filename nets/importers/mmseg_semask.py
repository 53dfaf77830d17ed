"""The authors' SeMask-FPN, which is built on MMSegmentation 0.x: family semask.

https://github.com/Picsart-AI-Research/SeMask-Segmentation, MIT
"""

import math

from torch import Tensor

from nets.errors import UserError
from nets.importers.mmseg_config import last_head, look_up, need, norm_eps, take, type_of
from nets.importers.mmseg_heads import conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules
from nets.importers.pyramid_backbones import SWIN_SIZES
from nets.importers.tensor_names import count
from nets.models.semask import usual_global_stages

HEADS = ("BranchFPNHead",)
STRIDES = (4, 8, 16, 32)


def describe(state_dict: dict[str, Tensor]) -> dict | None:
    """Return the model section that these tensors tell, None where they are of another network.

    They do not show the side of the semantic attention's windows: it is that of Swin's in all configurations
    of the authors.
    """
    needed = ("backbone.layers.0.semantic_layer.norm1.weight", "decode_head.scale_heads.0.0.conv.weight")
    if any(key not in state_dict for key in needed):
        return None
    stages = range(count(state_dict, r"backbone\.layers\.(\d+)\."))
    semantic = "semantic_layer.class_injection"
    tables = [
        state_dict[f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in stages
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    patches = state_dict["backbone.patch_embed.proj.weight"].shape
    return {
        "backbone": {
            "type": "SeMaskSwinTransformer",
            "in_chans": patches[1],
            "embed_dim": patches[0],
            "depths": [count(state_dict, rf"backbone\.layers\.{i}\.blocks\.(\d+)\.") for i in stages],
            "num_heads": [heads for _, heads in tables],
            "window_size": window,
            "sem_window_size": window,
            "num_sem_blocks": [
                count(state_dict, rf"backbone\.layers\.{i}\.{semantic}\.(\d+)\.") for i in stages
            ],
            "num_cls": len(state_dict[f"backbone.layers.0.{semantic}.0.mlp_cls_q.weight"]),
            "drop_path_rate": 0.3,
        },
        "decode_head": {
            "type": "BranchFPNHead",
            "in_index": [0, 1, 2, 3],
            "feature_strides": STRIDES,
            "channels": len(state_dict["decode_head.scale_heads.0.0.conv.weight"]),
            "num_classes": len(state_dict["decode_head.conv_seg.weight"]),
            "norm_cfg": {"type": "BN"},
        },
    }


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options and rename rules of a configuration's model."""
    head = last_head(model)
    o = take_head(head, {"feature_strides": None, "cate_w": 0.4})
    if list(o["in_index"]) != [0, 1, 2, 3] or tuple(o["feature_strides"]) != STRIDES or model.get("neck"):
        raise UserError(
            f"BranchFPNHead has in_index={o['in_index']}, feature_strides={o['feature_strides']}; all four "
            "maps of Swin without a neck are needed"
        )
    if model.get("auxiliary_head"):
        raise UserError("SeMask has an auxiliary_head, which its authors' networks have not; leave it out")
    options = {
        **_backbone(model["backbone"], head["num_classes"]),
        "channels": o["channels"],
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps(head),
    }
    return "semask", options, [*_head_rules(), *_backbone_rules()]


def _backbone(backbone: dict, num_classes: int) -> dict:
    """Return the options of ours that make a SeMaskSwinTransformer."""
    o = take(
        backbone,
        {
            "pretrain_img_size": 224, "patch_size": 4, "num_cls": 150, "sem_window_size": 7,
            "num_sem_blocks": (1, 1, 1, 1), "in_chans": 3, "embed_dim": 96, "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24), "window_size": 7, "mlp_ratio": 4, "qkv_bias": True, "qk_scale": None,
            "drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.2, "ape": False, "patch_norm": True,
            "out_indices": (0, 1, 2, 3), "use_checkpoint": False,
        },
    )  # fmt: skip
    need(
        backbone, o, patch_size=4, num_cls=num_classes, mlp_ratio=4, qkv_bias=True, qk_scale=None, ape=False,
        patch_norm=True, out_indices=(0, 1, 2, 3),
    )  # fmt: skip
    window = o["window_size"]
    size = (o["embed_dim"], tuple(o["depths"]), tuple(o["num_heads"]), window)
    name = look_up(backbone, SWIN_SIZES, size)
    if type_of(backbone) != "SeMaskSwinTransformer":
        raise UserError(f"BranchFPNHead stands on {type_of(backbone)!r}; SeMaskSwinTransformer is needed")
    return {
        "backbone": f"swin_{name.removeprefix('swin_')[0]}",  # tiny, small, base, large
        "window": window,
        "semantic_window": o["sem_window_size"],
        "semantic_blocks": tuple(o["num_sem_blocks"]),
        "global_stages": usual_global_stages(o["embed_dim"], o["num_cls"]),
        "drop_path": float(o["drop_path_rate"]),
        "backbone_dropout": float(o["drop_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
    }


def _head_rules() -> Rules:
    rules: Rules = [(r"decode_head\.conv_seg\.", "classifier.")]
    # Between two convolutions stands a module that enlarges.
    for j in range(len(STRIDES)):
        rules += conv_rules(rf"decode_head\.scale_heads\.(\d+)\.{2 * j}", rf"decoder.levels.\1.{j}")
    return rules


def _backbone_rules() -> Rules:
    semantic = r"backbone\.layers\.(\d+)\.semantic_layer"
    attention, ours = rf"{semantic}\.class_injection\.(\d+)", r"backbone.semantic.\1.blocks.\2"
    block = r"backbone\.layers\.(\d+)\.blocks\.(\d+)"
    return [
        (rf"{attention}\.mlp_cls_q\.", rf"{ours}.query."),
        (rf"{attention}\.mlp_cls_k\.", rf"{ours}.key."),
        (rf"{attention}\.mlp_v\.", rf"{ours}.value."),
        (rf"{attention}\.mlp_res\.", rf"{ours}.project."),
        (rf"{attention}\.gamma", rf"{ours}.gamma"),
        (rf"{semantic}\.norm1\.", r"backbone.semantic.\1.norm."),
        (rf"{block}\.attn\.relative_position_index", None),  # computed anew
        (rf"{block}\.", r"backbone.body.layers_\1.blocks.\2."),
        # timm halves the map at the beginning of the next stage.
        *(
            (rf"backbone\.layers\.{i}\.downsample\.", f"backbone.body.layers_{i + 1}.downsample.")
            for i in range(3)
        ),
        (r"backbone\.patch_embed\.", "backbone.body.patch_embed."),
        (r"backbone\.norm(\d)\.", r"backbone.norms.\1."),
    ]
