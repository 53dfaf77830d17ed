"""OpenMMLab's Twins in our words; used through `mmseg_backbones` as the functions of `pyramid_backbones`."""

from torch import Tensor

from nets.importers.mmseg_config import layer_norm_eps, look_up, need, take, type_of
from nets.importers.placing import Rules
from nets.importers.pyramid_backbones import Translated

WINDOWS = (7, 7, 7, 7)
# Widths, blocks, heads and MLP ratios of each stage -> timm's name.
PCPVT_WIDTHS = ((64, 128, 320, 512), (1, 2, 5, 8), (8, 8, 4, 4))
SIZES = {
    ("PCPVT", (3, 4, 6, 3), *PCPVT_WIDTHS): "twins_pcpvt_small",
    ("PCPVT", (3, 4, 18, 3), *PCPVT_WIDTHS): "twins_pcpvt_base",
    ("PCPVT", (3, 8, 27, 3), *PCPVT_WIDTHS): "twins_pcpvt_large",
    ("SVT", (2, 2, 10, 4), (64, 128, 256, 512), (2, 4, 8, 16), (4, 4, 4, 4)): "twins_svt_small",
    ("SVT", (2, 2, 18, 2), (96, 192, 384, 768), (3, 6, 12, 24), (4, 4, 4, 4)): "twins_svt_base",
    ("SVT", (2, 2, 18, 2), (128, 256, 512, 1024), (4, 8, 16, 32), (4, 4, 4, 4)): "twins_svt_large",
}


def twins(backbone: dict) -> Translated:
    """PCPVT and SVT, the two kinds of Twins."""
    kind = type_of(backbone)
    known = {
        "embed_dims": (64, 128, 256, 512), "patch_sizes": (4, 2, 2, 2), "strides": (4, 2, 2, 2),
        "num_heads": (1, 2, 4, 8), "mlp_ratios": (4, 4, 4, 4), "out_indices": (0, 1, 2, 3), "qkv_bias": False,
        "drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "depths": (3, 4, 6, 3),
        "sr_ratios": (8, 4, 2, 1), "norm_after_stage": False,
    }  # fmt: skip
    if kind == "SVT":
        known |= {
            "embed_dims": (64, 128, 256), "num_heads": (1, 2, 4), "mlp_ratios": (4, 4, 4),
            "drop_path_rate": 0.2, "depths": (4, 4, 4), "sr_ratios": (4, 2, 1), "norm_after_stage": True,
            "windiow_sizes": (7, 7, 7),
        }  # fmt: skip
    o = take(backbone, known)
    need(
        backbone, o, patch_sizes=(4, 2, 2, 2), strides=(4, 2, 2, 2), out_indices=(0, 1, 2, 3), qkv_bias=True,
        sr_ratios=(8, 4, 2, 1),
    )  # fmt: skip
    if kind == "SVT":
        need(backbone, o, windiow_sizes=WINDOWS)
    described = (tuple(o[key]) for key in ("depths", "embed_dims", "num_heads", "mlp_ratios"))
    options = {
        "stage_norm": bool(o["norm_after_stage"]),
        "drop_path": float(o["drop_path_rate"]),
        "dropout": float(o["drop_rate"]),
        "attention_dropout": float(o["attn_drop_rate"]),
        "norm_eps": layer_norm_eps(backbone, 1e-5),
    }
    body = "backbone.body.model."
    block, ours = r"backbone\.layers\.(\d+)\.(\d+)", rf"{body}blocks.\1.\2"
    rules: Rules = [
        (r"backbone\.patch_embeds\.(\d+)\.projection\.", rf"{body}patch_embeds.\1.proj."),
        (r"backbone\.patch_embeds\.(\d+)\.norm\.", rf"{body}patch_embeds.\1.norm."),
        (r"backbone\.position_encodings\.(\d+)\.proj\.", rf"{body}pos_block.\1.proj.0."),
        (r"backbone\.norm_list\.", "backbone.norms."),
        (rf"{block}\.attn\.attn\.out_proj\.", rf"{ours}.attn.proj."),
        (rf"{block}\.ffn\.layers\.0\.0\.", rf"{ours}.mlp.fc1."),
        (rf"{block}\.ffn\.layers\.1\.", rf"{ours}.mlp.fc2."),
        (rf"{block}\.", rf"{ours}."),
    ]
    return look_up(backbone, SIZES, (kind, *described)), options, rules, _split_queries


def _split_queries(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the projections of queries apart from those of keys and values."""
    split = {}
    for key, value in state_dict.items():
        before, found, kind = key.partition(".attn.attn.in_proj_")
        if found and before.startswith("backbone."):
            third = len(value) // 3
            split[f"{before}.attn.q.{kind}"], split[f"{before}.attn.kv.{kind}"] = value[:third], value[third:]
        else:
            split[key] = value
    return split
