"""Backbones of Hugging Face transformers, and what its networks have in common.

A backbone's function takes its configuration and returns name, options of its class or None, and rename rules
for tensors under "backbone.", their projections merged by `merge_projections` and named as by `newer`.
"""

import re

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules
from nets.importers.pyramid_backbones import SWIN_SIZES

Backbone = tuple[str, dict | None, Rules]

STAGES = ("stage1", "stage2", "stage3", "stage4")
CONVNEXT = {
    ((96, 192, 384, 768), (3, 3, 9, 3)): "tiny",
    ((96, 192, 384, 768), (3, 3, 27, 3)): "small",
    ((128, 256, 512, 1024), (3, 3, 27, 3)): "base",
    ((192, 384, 768, 1536), (3, 3, 27, 3)): "large",
    ((256, 512, 1024, 2048), (3, 3, 27, 3)): "xlarge",
}
BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
RESNET = {
    ("basic", BASIC, (2, 2, 2, 2)): "resnet18",
    ("basic", BASIC, (3, 4, 6, 3)): "resnet34",
    ("bottleneck", BOTTLENECK, (3, 4, 6, 3)): "resnet50",
    ("bottleneck", BOTTLENECK, (3, 4, 23, 3)): "resnet101",
    ("bottleneck", BOTTLENECK, (3, 8, 36, 3)): "resnet152",
}
# transformers 4 -> transformers 5, each anywhere in a name.
NEWER = (
    (r"^segformer\.encoder\.patch_embeddings\.(\d+)\.", r"segformer.stages.\1.patch_embeddings."),
    (r"^segformer\.encoder\.block\.(\d+)\.(\d+)\.", r"segformer.stages.\1.blocks.\2."),
    (r"^segformer\.encoder\.layer_norm\.(\d+)\.", r"segformer.stages.\1.layer_norm."),
    (r"^decode_head\.linear_c\.", "decode_head.linear_projections."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"\.attention\.self\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attention\.self\.relative", ".attention.relative_position_bias.relative"),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
    (r"^backbone\.(?=(encoder\.layers|embeddings\.norm)\.)", "backbone.swin."),
    (
        r"^backbone\.embeddings\.patch_embeddings\.projection\.",
        "backbone.swin.embeddings.patch_embeddings.projection.",
    ),
)


def swin(config: dict) -> Backbone:
    """SwinBackbone."""
    need(
        config, patch_size=4, mlp_ratio=4.0, qkv_bias=True, hidden_act="gelu", use_absolute_embeddings=False,
        layer_norm_eps=1e-5, out_features=STAGES,
    )  # fmt: skip
    described = (
        config["embed_dim"],
        tuple(config["depths"]),
        tuple(config["num_heads"]),
        config["window_size"],
    )
    options = {
        "drop_path": float(config["drop_path_rate"]),
        "dropout": float(config["hidden_dropout_prob"]),
        "attention_dropout": float(config["attention_probs_dropout_prob"]),
    }
    layer = r"backbone\.swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)"
    ours = r"backbone.body.layers_\1.blocks.\2"
    rules: Rules = [
        (r"backbone\.swin\.embeddings\.patch_embeddings\.projection\.", "backbone.body.patch_embed.proj."),
        (r"backbone\.swin\.embeddings\.norm\.", "backbone.body.patch_embed.norm."),
        (r"backbone\.swin\.layernorm\.", None),  # the whole network's last norm; dense maps have their own
        (rf"{layer}\.attention\.relative_position_bias\.relative_position_index", None),
        (rf"{layer}\.attention\.relative_position_bias\.", f"{ours}.attn."),
        (rf"{layer}\.attention\.qkv\.", f"{ours}.attn.qkv."),
        (rf"{layer}\.attention\.o_proj\.", f"{ours}.attn.proj."),
        (rf"{layer}\.layernorm_before\.", f"{ours}.norm1."),
        (rf"{layer}\.layernorm_after\.", f"{ours}.norm2."),
        (rf"{layer}\.mlp\.", f"{ours}.mlp."),
        *(
            (
                rf"backbone\.swin\.encoder\.layers\.{i}\.downsample\.",
                f"backbone.body.layers_{i + 1}.downsample.",
            )
            for i in range(3)
        ),
        *((rf"backbone\.hidden_states_norms\.stage{i + 1}\.", f"backbone.norms.{i}.") for i in range(4)),
    ]
    return look_up(SWIN_SIZES, described, "Swin"), options, rules


def convnext(config: dict) -> Backbone:
    """ConvNextBackbone."""
    need(config, patch_size=4, hidden_act="gelu", num_stages=4, out_features=STAGES)
    described = tuple(config["hidden_sizes"]), tuple(config["depths"])
    size = look_up(CONVNEXT, described, "ConvNeXt")
    layer, ours = r"backbone\.encoder\.stages\.(\d+)\.layers\.(\d+)", r"backbone.body.stages_\1.blocks.\2"
    rules: Rules = [
        (r"backbone\.embeddings\.patch_embeddings\.", "backbone.body.stem_0."),
        (r"backbone\.embeddings\.layernorm\.", "backbone.body.stem_1."),
        (r"backbone\.encoder\.stages\.(\d+)\.downsampling_layer\.", r"backbone.body.stages_\1.downsample."),
        (rf"{layer}\.layer_scale_parameter", f"{ours}.gamma"),
        (rf"{layer}\.dwconv\.", f"{ours}.conv_dw."),
        (rf"{layer}\.layernorm\.", f"{ours}.norm."),
        (rf"{layer}\.pwconv(\d)\.", rf"{ours}.mlp.fc\3."),
        *((rf"backbone\.hidden_states_norms\.stage{i + 1}\.", f"backbone.norms.{i}.") for i in range(4)),
    ]
    return f"convnext_{size}", {"drop_path": float(config["drop_path_rate"])}, rules


def resnet(config: dict) -> Backbone:
    """ResNetBackbone."""
    need(
        config, embedding_size=64, hidden_act="relu", downsample_in_first_stage=False,
        downsample_in_bottleneck=False, out_features=STAGES,
    )  # fmt: skip
    described = config["layer_type"], tuple(config["hidden_sizes"]), tuple(config["depths"])
    layer, ours = r"backbone\.encoder\.stages\.{}\.layers\.(\d+)", r"backbone.body.layer{}.\1"
    parts = (("convolution", "conv", "downsample.0"), ("normalization", "bn", "downsample.1"))
    rules: Rules = []
    for theirs, own, shortcut in parts:
        rules.append((rf"backbone\.embedder\.embedder\.{theirs}\.", f"backbone.body.{own}1."))
        for i in range(4):
            stage, place = layer.format(i), ours.format(i + 1)
            rules.append((rf"{stage}\.shortcut\.{theirs}\.", f"{place}.{shortcut}."))
            rules += [(rf"{stage}\.layer\.{j}\.{theirs}\.", f"{place}.{own}{j + 1}.") for j in range(3)]
    return look_up(RESNET, described, "ResNet"), None, rules


BACKBONES = {"swin": swin, "convnext": convnext, "resnet": resnet}


def read_backbone(config: dict, network: str) -> Backbone:
    """Translate the backbone of a network's configuration.

    Raises:
        UserError: a backbone that is not here, or another variant of it.
    """
    backbone = config.get("backbone_config") or {}
    if backbone.get("model_type") not in BACKBONES:
        raise UserError(
            f"Hugging Face's {network} has backbone {backbone.get('model_type')!r}; "
            f"{', '.join(BACKBONES)} can be imported"
        )
    return BACKBONES[backbone["model_type"]](backbone)


def newer(state_dict: dict[str, Tensor], names: tuple = NEWER) -> dict[str, Tensor]:
    """Return the weights by the names of transformers 5, which regular expressions make of the older ones."""
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def merge_projections(state_dict: dict[str, Tensor], kinds: str = "weight|bias") -> dict[str, Tensor]:
    """Return the weights with query, key and value of each attention in one matrix.

    Args:
        state_dict: by the names of transformers 5.
        kinds: which of "weight" and "bias" are merged.
    """
    merged = {}
    for key, value in state_dict.items():
        if re.search(rf"\.q_proj\.({kinds})$", key):
            parts = [state_dict[key.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            merged[key.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
        elif not re.search(rf"\.[kv]_proj\.({kinds})$", key):
            merged[key] = value
    return merged


def count_classes(config: dict) -> int:
    """Return the number of classes that a configuration states."""
    return len(config["id2label"]) if config.get("id2label") else int(config["num_labels"])


def need(config: dict, **values: object) -> None:
    """Check entries of a configuration of which only one value is here.

    Raises:
        UserError: an entry has another value.
    """
    for key, value in values.items():
        given = config.get(key, value)
        if (tuple(given) if isinstance(given, (list, tuple)) else given) != value:
            raise UserError(
                f"Hugging Face's {config.get('model_type')} has {key}={given!r}; {value!r} is needed here"
            )


def look_up(sizes: dict, described: tuple, family: str) -> str:
    """Return the name of ours for the sizes that a configuration describes.

    Raises:
        UserError: none has them.
    """
    if described not in sizes:
        raise UserError(f"Hugging Face's {family} has the sizes {described}; here are {list(sizes)}")
    return sizes[described]
