"""OpenMMLab's Swin, ConvNeXt, PoolFormer and MSCAN in our words.

Each function takes the backbone's section and returns name, options of its class, rename rules, and a
conversion of the state dict or None; they are used through `mmseg_backbones`.
"""

from collections.abc import Callable

from torch import Tensor

from nets.backbones.mscan import MLP_RATIOS, MSCAN_SIZES
from nets.errors import UserError
from nets.importers.mmseg_config import layer_norm_eps, look_up, need, norm_eps, take
from nets.importers.placing import Rules

Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Translated = tuple[str, dict, Rules, Convert | None]

# Width, blocks and heads of each stage, window -> timm's name.
SWIN_SIZES = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24), 7): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2), (3, 6, 12, 24), 7): "swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 7): "swin_base_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 12): "swin_base_patch4_window12_384",
    (192, (2, 2, 18, 2), (6, 12, 24, 48), 7): "swin_large_patch4_window7_224",
    (192, (2, 2, 18, 2), (6, 12, 24, 48), 12): "swin_large_patch4_window12_384",
}
POOLFORMER_SIZES = ("s12", "s24", "s36", "m36", "m48")
CONVNEXT_SIZES = ("tiny", "small", "base", "large", "xlarge")


def mscan(backbone: dict) -> Translated:
    """MSCAN of SegNeXt."""
    o = take(
        backbone,
        {
            "embed_dims": (64, 128, 256, 512), "mlp_ratios": (4, 4, 4, 4), "depths": (3, 4, 6, 3),
            "num_stages": 4, "attention_kernel_sizes": (5, (1, 7), (1, 11), (1, 21)),
            "attention_kernel_paddings": (2, (0, 3), (0, 5), (0, 10)), "drop_rate": 0.0,
            "drop_path_rate": 0.0, "act_cfg": {"type": "GELU"},
        },
    )  # fmt: skip
    need(backbone, o, num_stages=4, mlp_ratios=MLP_RATIOS, act_cfg={"type": "GELU"})
    kernels = [
        tuple(each) if isinstance(each, (list, tuple)) else each for each in o["attention_kernel_sizes"]
    ]
    if kernels not in ([5, (1, 7), (1, 11), (1, 21)], [(5,), (1, 7), (1, 11), (1, 21)]):
        raise UserError(f"MSCAN has attention_kernel_sizes={kernels}; 5, 7, 11 and 21 are needed here")
    sizes = {(size.widths, size.depths): name for name, size in MSCAN_SIZES.items()}
    name = look_up(backbone, sizes, (tuple(o["embed_dims"]), tuple(o["depths"])))
    options = {
        "drop_path": float(o["drop_path_rate"]),
        "backbone_dropout": float(o["drop_rate"]),
        "backbone_norm_eps": norm_eps(backbone),
    }
    rules: Rules = []
    for i in range(4):  # OpenMMLab counts stages from 1
        block, ours = rf"backbone\.block{i + 1}\.(\d+)", rf"backbone.stages.{i}.\1"
        gate = rf"{block}\.attn\.spatial_gating_unit"
        rules += [
            (rf"backbone\.patch_embed{i + 1}\.proj\.(?=\d)", f"backbone.embeds.{i}."),
            (rf"backbone\.patch_embed{i + 1}\.proj\.", f"backbone.embeds.{i}.0."),
            (rf"backbone\.patch_embed{i + 1}\.norm\.", f"backbone.embeds.{i}.1."),
            (rf"backbone\.norm{i + 1}\.", f"backbone.norms.{i}."),
            (rf"{gate}\.conv0\.", rf"{ours}.attention.gate.local."),
            (rf"{gate}\.conv3\.", rf"{ours}.attention.gate.mix."),
            *(
                (rf"{gate}\.conv{j}_{k + 1}\.", rf"{ours}.attention.gate.strips.{j}.{k}.")
                for j in range(3)
                for k in range(2)
            ),
            (rf"{block}\.attn\.proj_1\.", rf"{ours}.attention.enter."),
            (rf"{block}\.attn\.proj_2\.", rf"{ours}.attention.leave."),
            (rf"{block}\.mlp\.fc1\.", rf"{ours}.mlp.expand."),
            (rf"{block}\.mlp\.dwconv\.", rf"{ours}.mlp.mix."),
            (rf"{block}\.mlp\.fc2\.", rf"{ours}.mlp.contract."),
            (rf"{block}\.layer_scale_", rf"{ours}.scale"),
            (rf"{block}\.", rf"{ours}."),
        ]
    return name, options, rules, None


def swin(backbone: dict) -> Translated:
    """SwinTransformer."""
    o = take(
        backbone,
        {
            "embed_dims": 96, "patch_size": 4, "window_size": 7, "mlp_ratio": 4, "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24), "strides": (4, 2, 2, 2), "out_indices": (0, 1, 2, 3),
            "qkv_bias": True, "qk_scale": None, "patch_norm": True, "drop_rate": 0.0, "attn_drop_rate": 0.0,
            "drop_path_rate": 0.1, "use_abs_pos_embed": False, "pretrain_img_size": 224,
            "convert_weights": None, "act_cfg": {"type": "GELU"},
        },
    )  # fmt: skip
    need(
        backbone, o, patch_size=4, mlp_ratio=4, strides=(4, 2, 2, 2), out_indices=(0, 1, 2, 3), qkv_bias=True,
        qk_scale=None, patch_norm=True, use_abs_pos_embed=False, act_cfg={"type": "GELU"},
    )  # fmt: skip
    size = (o["embed_dims"], tuple(o["depths"]), tuple(o["num_heads"]), o["window_size"])
    name = look_up(backbone, SWIN_SIZES, size)
    options = {
        "drop_path": float(o["drop_path_rate"]),
        "dropout": float(o["drop_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
        "norm_eps": layer_norm_eps(backbone, 1e-5),
    }
    block, ours = r"backbone\.stages\.(\d+)\.blocks\.(\d+)", r"backbone.body.layers_\1.blocks.\2"
    rules: Rules = [
        (r"backbone\.patch_embed\.projection\.", "backbone.body.patch_embed.proj."),
        (r"backbone\.patch_embed\.norm\.", "backbone.body.patch_embed.norm."),
        (r"backbone\.norm(\d)\.", r"backbone.norms.\1."),
        (rf"{block}\.attn\.w_msa\.relative_position_index", None),
        (rf"{block}\.attn\.w_msa\.", rf"{ours}.attn."),
        (rf"{block}\.ffn\.layers\.0\.0\.", rf"{ours}.mlp.fc1."),
        (rf"{block}\.ffn\.layers\.1\.", rf"{ours}.mlp.fc2."),
        (rf"{block}\.", rf"{ours}."),
        # timm halves the map at the beginning of the next stage.
        *(
            (rf"backbone\.stages\.{i}\.downsample\.", f"backbone.body.layers_{i + 1}.downsample.")
            for i in range(3)
        ),
    ]
    return name, options, rules, _swin_merging


def _swin_merging(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the four merged pixels ordered as the authors do.

    OpenMMLab unfolds: the channel runs slowest, the pixels row by row. The authors concatenate the pixels
    column by column.
    """
    converted = {}
    for key, value in state_dict.items():
        if ".downsample." in key and key.startswith("backbone.stages."):
            pixels = value.unflatten(-1, (-1, 2, 2))  # (..., D, row, column)
            value = pixels.movedim(-3, -1).transpose(-3, -2).flatten(-3)
        converted[key] = value
    return converted


def convnext(backbone: dict) -> Translated:
    """ConvNeXt of MMPretrain."""
    o = take(
        backbone,
        {
            "arch": "tiny", "stem_patch_size": 4, "act_cfg": {"type": "GELU"}, "linear_pw_conv": True,
            "use_grn": False, "drop_path_rate": 0.0, "layer_scale_init_value": 1e-6, "out_indices": -1,
            "gap_before_final_norm": True,
        },
    )  # fmt: skip
    need(
        backbone, o, stem_patch_size=4, use_grn=False, out_indices=(0, 1, 2, 3), gap_before_final_norm=False,
        act_cfg={"type": "GELU"},
    )  # fmt: skip
    if o["arch"] not in CONVNEXT_SIZES or not o["layer_scale_init_value"]:
        raise UserError(
            f"ConvNeXt has arch={o['arch']!r}; {', '.join(CONVNEXT_SIZES)} with layer scale are here"
        )
    options = {"drop_path": float(o["drop_path_rate"]), "norm_eps": layer_norm_eps(backbone, 1e-6)}
    block, ours = r"backbone\.stages\.(\d+)\.(\d+)", r"backbone.body.stages_\1.blocks.\2"
    rules: Rules = [
        (r"backbone\.downsample_layers\.0\.", "backbone.body.stem_"),
        (r"backbone\.downsample_layers\.(\d)\.", r"backbone.body.stages_\1.downsample."),
        (r"backbone\.norm(\d)\.", r"backbone.norms.\1."),
        (rf"{block}\.depthwise_conv\.", rf"{ours}.conv_dw."),
        (rf"{block}\.pointwise_conv(\d)\.", rf"{ours}.mlp.fc\3."),
        (rf"{block}\.", rf"{ours}."),
    ]
    return f"convnext_{o['arch']}", options, rules, None if o["linear_pw_conv"] else _convnext_matrices


def _convnext_matrices(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with ConvNeXt's 1x1 convolutions as matrices."""
    return {
        key: value.flatten(1) if ".pointwise_conv" in key and value.ndim == 4 else value
        for key, value in state_dict.items()
    }


def poolformer(backbone: dict) -> Translated:
    """PoolFormer of MMPretrain."""
    o = take(
        backbone,
        {
            "arch": "s12", "pool_size": 3, "act_cfg": {"type": "GELU"}, "in_patch_size": 7, "in_stride": 4,
            "in_pad": 2, "down_patch_size": 3, "down_stride": 2, "down_pad": 1, "drop_rate": 0.0,
            "drop_path_rate": 0.0, "out_indices": -1,
        },
    )  # fmt: skip
    need(
        backbone, o, pool_size=3, act_cfg={"type": "GELU"}, in_patch_size=7, in_stride=4, in_pad=2,
        down_patch_size=3, down_stride=2, down_pad=1, out_indices=(0, 2, 4, 6),
    )  # fmt: skip
    norm = backbone.get("norm_cfg", {"type": "GN", "num_groups": 1})
    if o["arch"] not in POOLFORMER_SIZES or norm.get("type") != "GN" or norm.get("num_groups") != 1:
        raise UserError(
            f"PoolFormer has arch={o['arch']!r} and norm_cfg={norm}; {', '.join(POOLFORMER_SIZES)} with "
            "group norm of one group are here"
        )
    options = {
        "drop_path": float(o["drop_path_rate"]),
        "dropout": float(o["drop_rate"]),
        "norm_eps": float(norm.get("eps", 1e-5)),
    }
    rules: Rules = [(r"backbone\.patch_embed\.proj\.", "backbone.body.stem.conv.")]
    for i in range(4):  # a stage and what halves the map behind it are numbered on
        block, ours = rf"backbone\.network\.{2 * i}\.(\d+)", rf"backbone.body.stages_{i}.blocks.\1"
        halving = rf"backbone\.network\.{2 * i + 1}\.proj\."
        rules += [
            (rf"{block}\.layer_scale_(\d)", rf"{ours}.layer_scale\2.scale"),
            (rf"{block}\.", rf"{ours}."),
            (halving, f"backbone.body.stages_{i + 1}.downsample.conv."),
            (rf"backbone\.norm{2 * i}\.", f"backbone.norms.{i}."),
        ]
    return f"poolformer_{o['arch']}", options, rules, None
