"""Hugging Face's BeitForSemanticSegmentation: family upernet on BEiT."""

from torch import Tensor

from nets.errors import UserError
from nets.importers.huggingface_backbones import count_classes, merge_projections, need, newer
from nets.importers.placing import Rules, rename
from nets.importers.plain_backbones import find_size

# Names of transformers 4 -> of transformers 5.
NEWER = (
    (r"^beit\.encoder\.layer\.", "beit.layers."),
    (r"\.attention\.attention\.([qkv])(uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.attention\.relative", ".relative"),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^fpn1\.0\.", "fpn.fpn1.conv_transpose1."),
    (r"^fpn1\.1\.", "fpn.fpn1.normalization."),
    (r"^fpn1\.3\.", "fpn.fpn1.conv_transpose2."),
    (r"^fpn2\.0\.", "fpn.fpn2."),
    (r"^decode_head\.psp_modules\.(\d+)\.1\.", r"decode_head.psp_modules.blocks.\1.conv."),
    (r"^decode_head\.bottleneck\.", "decode_head.psp_bottleneck."),
    (r"^((?:decode|auxiliary)_head\..*)\.conv\.(weight|bias)$", r"\1.convolution.\2"),
    (r"^((?:decode|auxiliary)_head\..*)\.bn\.", r"\1.normalization."),
)


def read_beit(config: dict, state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate BeitForSemanticSegmentation.

    Raises:
        UserError: another kind of positions or another variant that is not here.
    """
    need(
        config, use_relative_position_bias=True, use_shared_relative_position_bias=False,
        use_mask_token=False, hidden_act="gelu",
    )  # fmt: skip
    width, depth = config["hidden_size"], config["num_hidden_layers"]
    indices = config.get("out_indices") or config.get("segmentation_indices")
    # Theirs count the patches before the first block as 1.
    blocks = tuple(i - 2 for i in indices)
    if len(blocks) != 4 or blocks[0] < 0 or list(blocks) != sorted(set(blocks)):
        raise UserError(
            f"Hugging Face's beit has out_indices={indices}; four ascending from 2 on are needed here"
        )
    size, own = find_size(width, depth, config["num_attention_heads"], among=("base", "large"))
    image = config["image_size"]
    auxiliary = {
        "channels": config["auxiliary_channels"],
        "index": (2,),
        "num_convs": config["auxiliary_num_convs"],
        "concat_input": config["auxiliary_concat_input"],
    }
    options = {
        "bands": config.get("num_channels", 3),
        "num_classes": count_classes(config),
        "backbone": f"beit_{size[0]}",
        "channels": width,
        "pool_scales": tuple(config["pool_scales"]),
        "aux_heads": (auxiliary,) if config["use_auxiliary_head"] else (),
        "backbone_options": {
            **own,
            "blocks": blocks,
            "image_size": (image, image) if isinstance(image, int) else tuple(image),
            "patch": config["patch_size"],
            "mlp_ratio": config["intermediate_size"] / width,
            "position_embedding": bool(config["use_absolute_position_embeddings"]),
            "layer_scale": float(config["layer_scale_init_value"]),
            "drop_path": float(config["drop_path_rate"]),
            "dropout": float(config["hidden_dropout_prob"]),
            "attention_dropout": float(config["attention_probs_dropout_prob"]),
            "norm_eps": config["layer_norm_eps"],
        },
    }
    weights = rename(merge_projections(newer(state_dict, NEWER), "weight"), _rules(depth, blocks[-1]))
    return {"name": "upernet", "options": options}, weights


def _rules(depth: int, last: int) -> Rules:
    block, ours = r"beit\.layers\.(\d+)", r"backbone.body.blocks.\1"
    head = r"decode_head"
    rules: Rules = [
        *((rf"beit\.layers\.{i}\.", None) for i in range(last + 1, depth)),
        (r"beit\.(pooler|layernorm)\.", None),
        (r"beit\.embeddings\.cls_token", "backbone.body.cls_token"),
        (r"beit\.embeddings\.position_embeddings", "backbone.body.pos_embed"),
        (r"beit\.embeddings\.patch_embeddings\.projection\.", "backbone.body.patch_embed.proj."),
        (rf"{block}\.lambda_(\d)", rf"{ours}.ls\2.gamma"),
        (rf"{block}\.attention\.qkv\.", f"{ours}.attn.qkv."),
        (rf"{block}\.attention\.([qv])_proj\.bias", rf"{ours}.attn.qkv.\2_bias"),
        (rf"{block}\.attention\.o_proj\.", f"{ours}.attn.proj."),
        (rf"{block}\.relative_position_bias\.relative_position_index", None),
        (rf"{block}\.relative_position_bias\.", f"{ours}.attn."),
        (rf"{block}\.layernorm_before\.", f"{ours}.norm1."),
        (rf"{block}\.layernorm_after\.", f"{ours}.norm2."),
        (rf"{block}\.mlp\.", f"{ours}.mlp."),
        (r"fpn\.fpn1\.conv_transpose1\.", "backbone.neck.0.0."),
        (r"fpn\.fpn1\.normalization\.", "backbone.neck.0.1."),
        (r"fpn\.fpn1\.conv_transpose2\.", "backbone.neck.0.3."),
        (r"fpn\.fpn2\.", "backbone.neck.1.0."),
        (rf"{head}\.classifier\.", "classifier."),
        (r"auxiliary_head\.classifier\.", "aux_heads.0.classifier."),
    ]
    for theirs, place in (
        (rf"{head}\.psp_modules\.blocks\.(\d+)\.conv", r"decoder.context.pyramid.branches.\1.1"),
        (rf"{head}\.psp_bottleneck", "decoder.context.join"),
        (rf"{head}\.lateral_convs\.(\d+)", r"decoder.laterals.\1"),
        (rf"{head}\.fpn_convs\.(\d+)", r"decoder.smooth.\1"),
        (rf"{head}\.fpn_bottleneck", "decoder.fuse"),
        (r"auxiliary_head\.convs\.(\d+)", r"aux_heads.0.decoder.convs.\1"),
        (r"auxiliary_head\.conv_cat", "aux_heads.0.decoder.join"),
    ):
        rules.append((rf"{theirs}\.convolution\.", f"{place}.conv."))
        rules.append((rf"{theirs}\.normalization\.", f"{place}.norm."))
    return rules
