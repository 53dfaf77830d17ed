"""SegFormer and UPerNet of Hugging Face transformers (https://github.com/huggingface/transformers).

A function takes the configuration as a dict and the state dict and returns our blueprint and state dict. The
tensors may have the names of transformers 4 (as on the Hub) or of transformers 5.
"""

import re

import torch
from torch import Tensor

from nets.backbones.mit import HEADS, MIT_SIZES, MLP_RATIO, REDUCTIONS
from nets.errors import UserError
from nets.importers.openmmlab import Rules, place_weights, rename
from nets.importers.pyramid_backbones import SWIN_SIZES
from nets.registry import create_model
from nets.segmentation_model import SegmentationNetwork

Translation = tuple[dict, dict[str, Tensor]]

LAYER_NORM_EPS = 1e-5  # PyTorch's default, whatever SegFormer's configuration says
STAGES = ("stage1", "stage2", "stage3", "stage4")
CONVNEXT = {
    ((96, 192, 384, 768), (3, 3, 9, 3)): "tiny",
    ((96, 192, 384, 768), (3, 3, 27, 3)): "small",
    ((128, 256, 512, 1024), (3, 3, 27, 3)): "base",
    ((192, 384, 768, 1536), (3, 3, 27, 3)): "large",
    ((256, 512, 1024, 2048), (3, 3, 27, 3)): "xlarge",
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


def read_huggingface(config: dict, state_dict: dict[str, Tensor]) -> Translation:
    """Translate a network by its configuration's `model_type`.

    Args:
        config: the configuration as a dict, as `config.json` or `to_dict()` give it.
        state_dict: weights by Hugging Face's names.

    Returns:
        Blueprint ({"name", "options"}) and weights by our names.

    Raises:
        UserError: a network that is not here, or tensors without a place.
    """
    readers = {"segformer": read_segformer, "upernet": read_upernet}
    kind = config.get("model_type")
    if kind not in readers:
        raise UserError(
            f"Hugging Face's model_type {kind!r} cannot be imported; there are: {', '.join(readers)}"
        )
    return readers[kind](config, state_dict)


def load_huggingface(config: dict, state_dict: dict[str, Tensor]) -> SegmentationNetwork:
    """Build the network of a configuration with its weights, in eval mode.

    Raises:
        UserError: as `read_huggingface`, or tensors missing or of another shape.
    """
    blueprint, weights = read_huggingface(config, state_dict)
    network = create_model(blueprint["name"], **blueprint["options"])
    place_weights(network, weights)
    return network.eval()


def read_segformer(config: dict, state_dict: dict[str, Tensor]) -> Translation:
    """Translate SegformerForSemanticSegmentation."""
    _need(
        config, num_encoder_blocks=4, sr_ratios=REDUCTIONS, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2),
        num_attention_heads=HEADS, mlp_ratios=(MLP_RATIO,) * 4, hidden_act="gelu",
    )  # fmt: skip
    described = tuple(config["hidden_sizes"]), tuple(config["depths"])
    sizes = {(size.widths, size.depths): name.removeprefix("mit_") for name, size in MIT_SIZES.items()}
    options = {
        "bands": config.get("num_channels", 3),
        "num_classes": _num_classes(config),
        "backbone": _look_up(sizes, described, "SegFormer"),
        "decoder": "mlp",
        "decoder_channels": config["decoder_hidden_size"],
        "drop_path": float(config["drop_path_rate"]),
        "dropout": float(config["classifier_dropout_prob"]),
        "backbone_dropout": float(config["hidden_dropout_prob"]),
        "attention_dropout": float(config["attention_probs_dropout_prob"]),
        "embed_eps": LAYER_NORM_EPS,
        "block_eps": LAYER_NORM_EPS,
    }
    stage, block = r"segformer\.stages\.(\d+)", r"segformer\.stages\.(\d+)\.blocks\.(\d+)"
    ours, blocks = r"backbone.stages.\1", r"backbone.stages.\1.blocks.\2"
    rules: Rules = [
        (rf"{stage}\.patch_embeddings\.proj\.", f"{ours}.embed."),
        (rf"{stage}\.patch_embeddings\.layer_norm\.", f"{ours}.embed_norm."),
        (rf"{stage}\.layer_norm\.", f"{ours}.norm."),
        (rf"{block}\.layernorm_before\.", f"{blocks}.norm1."),
        (rf"{block}\.layernorm_after\.", f"{blocks}.norm2."),
        (rf"{block}\.attention\.o_proj\.", f"{blocks}.attention.project."),
        (rf"{block}\.attention\.sequence_reduction\.sequence_reduction\.", f"{blocks}.attention.reduce."),
        (rf"{block}\.attention\.sequence_reduction\.layer_norm\.", f"{blocks}.attention.norm."),
        (rf"{block}\.attention\.qkv\.", f"{blocks}.attention.qkv."),
        (rf"{block}\.mlp\.fc1\.", f"{blocks}.mlp.expand."),
        (rf"{block}\.mlp\.dwconv\.dwconv\.", f"{blocks}.mlp.mix."),
        (rf"{block}\.mlp\.fc2\.", f"{blocks}.mlp.contract."),
        (r"decode_head\.linear_projections\.(\d+)\.proj\.", r"decoder.project.\1."),
        (r"decode_head\.linear_fuse\.", "decoder.fuse.conv."),
        (r"decode_head\.batch_norm\.", "decoder.fuse.norm."),
        (r"decode_head\.classifier\.", "classifier."),
    ]
    weights = rename(_merge_projections(_newer(state_dict)), rules)
    for key, value in weights.items():
        if re.match(r"decoder\.project\.\d+\.weight", key):
            weights[key] = value[:, :, None, None]  # a linear layer on every pixel is a 1x1 convolution
    fuse = weights["decoder.fuse.conv.weight"].unflatten(1, (4, -1))
    weights["decoder.fuse.conv.weight"] = fuse.flip(1).flatten(1, 2)  # theirs joins the coarsest map first
    return {"name": "segformer", "options": options}, weights


def read_upernet(config: dict, state_dict: dict[str, Tensor]) -> Translation:
    """Translate UperNetForSemanticSegmentation on Swin or ConvNeXt."""
    backbone = config.get("backbone_config") or {}
    readers = {"swin": _swin, "convnext": _convnext}
    if backbone.get("model_type") not in readers:
        raise UserError(
            f"Hugging Face's UPerNet has backbone {backbone.get('model_type')!r}; "
            "swin and convnext can be imported"
        )
    name, backbone_options, rules = readers[backbone["model_type"]](backbone)
    options = {
        "bands": backbone.get("num_channels", 3),
        "num_classes": _num_classes(config),
        "backbone": name,
        "channels": config["hidden_size"],
        "pool_scales": tuple(config["pool_scales"]),
        "aux_heads": (),
        "backbone_options": backbone_options,
    }
    if config["use_auxiliary_head"]:
        options["aux_heads"] = (
            {
                "channels": config["auxiliary_channels"],
                "index": (2,),
                "num_convs": config["auxiliary_num_convs"],
                "concat_input": config["auxiliary_concat_input"],
            },
        )
    rules = [
        *rules,
        *_conv_rules(r"decode_head\.psp_modules\.(\d+)\.1", r"decoder.context.pyramid.branches.\1.1"),
        *_conv_rules(r"decode_head\.bottleneck", "decoder.context.join"),
        *_conv_rules(r"decode_head\.lateral_convs\.(\d+)", r"decoder.laterals.\1"),
        *_conv_rules(r"decode_head\.fpn_convs\.(\d+)", r"decoder.smooth.\1"),
        *_conv_rules(r"decode_head\.fpn_bottleneck", "decoder.fuse"),
        (r"decode_head\.classifier\.", "classifier."),
        *_conv_rules(r"auxiliary_head\.convs\.(\d+)", r"aux_heads.0.decoder.convs.\1"),
        *_conv_rules(r"auxiliary_head\.conv_cat", "aux_heads.0.decoder.join"),
        (r"auxiliary_head\.classifier\.", "aux_heads.0.classifier."),
    ]
    return {"name": "upernet", "options": options}, rename(_merge_projections(_newer(state_dict)), rules)


def _swin(config: dict) -> tuple[str, dict, Rules]:
    _need(
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
    return _look_up(SWIN_SIZES, described, "Swin"), options, rules


def _convnext(config: dict) -> tuple[str, dict, Rules]:
    _need(config, patch_size=4, hidden_act="gelu", num_stages=4, out_features=STAGES)
    described = tuple(config["hidden_sizes"]), tuple(config["depths"])
    size = _look_up(CONVNEXT, described, "ConvNeXt")
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


def _conv_rules(theirs: str, ours: str) -> Rules:
    return [(rf"{theirs}\.conv\.", f"{ours}.conv."), (rf"{theirs}\.batch_norm\.", f"{ours}.norm.")]


def _newer(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by the names of transformers 5."""
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in NEWER:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _merge_projections(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with query, key and value of each attention in one matrix."""
    merged = {}
    for key, value in state_dict.items():
        if ".q_proj." in key:
            parts = [state_dict[key.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            merged[key.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", key):
            merged[key] = value
    return merged


def _num_classes(config: dict) -> int:
    return len(config["id2label"]) if config.get("id2label") else int(config["num_labels"])


def _need(config: dict, **values: object) -> None:
    for key, value in values.items():
        given = config.get(key, value)
        if (tuple(given) if isinstance(given, (list, tuple)) else given) != value:
            raise UserError(
                f"Hugging Face's {config.get('model_type')} has {key}={given!r}; {value!r} is needed here"
            )


def _look_up(sizes: dict, described: tuple, family: str) -> str:
    if described not in sizes:
        raise UserError(f"Hugging Face's {family} has the sizes {described}; here are {list(sizes)}")
    return sizes[described]
