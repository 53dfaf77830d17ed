"""OpenMMLab's MiT in our words, and the table of all backbones of this kind.

Each function takes the backbone's section and returns name, options of its class, rename rules, and a
conversion of the state dict or None; they are used through `mmseg_backbones`.
"""

from collections.abc import Callable

from torch import Tensor

from nets.backbones.mit import HEADS as MIT_HEADS
from nets.backbones.mit import MIT_SIZES, MLP_RATIO, REDUCTIONS
from nets.importers.mmseg_config import layer_norm_eps, look_up, need, take
from nets.importers.placing import Rules
from nets.importers.plain_backbones import beit, mae, vit
from nets.importers.pyramid_backbones import Translated, convnext, mscan, poolformer, swin
from nets.importers.twins_backbone import twins


def mit(backbone: dict) -> Translated:
    """MixVisionTransformer of SegFormer."""
    o = take(
        backbone,
        {
            "embed_dims": 64, "num_stages": 4, "num_layers": (3, 4, 6, 3), "num_heads": (1, 2, 4, 8),
            "patch_sizes": (7, 3, 3, 3), "strides": (4, 2, 2, 2), "sr_ratios": (8, 4, 2, 1),
            "out_indices": (0, 1, 2, 3), "mlp_ratio": 4, "qkv_bias": True, "drop_rate": 0.0,
            "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "act_cfg": {"type": "GELU"},
        },
    )  # fmt: skip
    need(
        backbone, o, num_stages=4, num_heads=MIT_HEADS, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2),
        sr_ratios=REDUCTIONS, out_indices=(0, 1, 2, 3), mlp_ratio=MLP_RATIO, qkv_bias=True,
        act_cfg={"type": "GELU"},
    )  # fmt: skip
    widths = tuple(o["embed_dims"] * heads for heads in MIT_HEADS)
    sizes = {(size.widths, size.depths): name for name, size in MIT_SIZES.items()}
    name = look_up(backbone, sizes, (widths, tuple(o["num_layers"])))
    eps = layer_norm_eps(backbone, 1e-6)
    options = {
        "drop_path": float(o["drop_path_rate"]),
        "backbone_dropout": float(o["drop_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
        "embed_eps": eps,
        "block_eps": eps,
    }
    block, ours = r"backbone\.layers\.(\d+)\.1\.(\d+)", r"backbone.stages.\1.blocks.\2"
    rules: Rules = [
        (r"backbone\.layers\.(\d+)\.0\.projection\.", r"backbone.stages.\1.embed."),
        (r"backbone\.layers\.(\d+)\.0\.norm\.", r"backbone.stages.\1.embed_norm."),
        (rf"{block}\.attn\.attn\.in_proj_", rf"{ours}.attention.qkv."),
        (rf"{block}\.attn\.attn\.out_proj\.", rf"{ours}.attention.project."),
        (rf"{block}\.attn\.sr\.", rf"{ours}.attention.reduce."),
        (rf"{block}\.attn\.norm\.", rf"{ours}.attention.norm."),
        (rf"{block}\.ffn\.layers\.0\.", rf"{ours}.mlp.expand."),
        (rf"{block}\.ffn\.layers\.1\.", rf"{ours}.mlp.mix."),
        (rf"{block}\.ffn\.layers\.4\.", rf"{ours}.mlp.contract."),
        (rf"{block}\.", rf"{ours}."),
        (r"backbone\.layers\.(\d+)\.2\.", r"backbone.stages.\1.norm."),
    ]
    return name, options, rules, _mit_matrices


def _mit_matrices(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the 1x1 convolutions of MiT's MLPs as matrices."""
    return {
        key: value.flatten(1) if ".ffn.layers." in key and value.shape[2:] == (1, 1) else value
        for key, value in state_dict.items()
    }


TRANSFORMERS: dict[str, Callable[[dict], Translated]] = {
    "MixVisionTransformer": mit,
    "VisionTransformer": vit,
    "BEiT": beit,
    "MAE": mae,
    "SwinTransformer": swin,
    "ConvNeXt": convnext,
    "PoolFormer": poolformer,
    "PCPVT": twins,
    "SVT": twins,
    "MSCAN": mscan,
}
