"""Networks of Hugging Face transformers (https://github.com/huggingface/transformers).

A function takes the configuration as a dict and the state dict and returns our blueprint and state dict. The
tensors may have the names of transformers 4 (as on the Hub) or of transformers 5.
"""

import re

from torch import Tensor

from nets.backbones.mit import HEADS, MIT_SIZES, MLP_RATIO, REDUCTIONS
from nets.errors import UserError
from nets.importers.about import RGB, describe_import
from nets.importers.huggingface_backbones import (
    count_classes,
    look_up,
    merge_projections,
    need,
    newer,
    read_backbone,
)
from nets.importers.huggingface_beit import read_beit
from nets.importers.huggingface_dpt import read_dpt
from nets.importers.huggingface_eomt import read_eomt, read_eomt_dinov3
from nets.importers.huggingface_mask2former import read_mask2former
from nets.importers.huggingface_maskformer import read_maskformer
from nets.importers.placing import Rules, place_weights, rename
from nets.registry import create_model
from nets.segmentation_model import SegmentationNetwork

Translation = tuple[dict, dict[str, Tensor]]

LAYER_NORM_EPS = 1e-5  # PyTorch's default, whatever SegFormer's configuration says


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
    readers = {
        "beit": read_beit,
        "dpt": read_dpt,
        "eomt": read_eomt,
        "eomt_dinov3": read_eomt_dinov3,
        "mask2former": read_mask2former,
        "maskformer": read_maskformer,
        "segformer": read_segformer,
        "upernet": read_upernet,
    }
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
    describe_import(network, "Hugging Face", **read_facts(config, {}))
    return network.eval()


def read_facts(config: dict, preprocessor: dict) -> dict:
    """Return what configuration and `preprocessor_config.json` say of classes and normalisation.

    Args:
        config: as `config.json` or `to_dict()` give it.
        preprocessor: how images are scaled and labels counted; empty where there is no such file.

    Returns:
        Arguments of `describe_import`.
    """
    names, facts = config.get("id2label"), {}
    if names:
        facts["class_names"] = [str(names[key]) for key in sorted(names, key=int)]
    mean, std = preprocessor.get("image_mean"), preprocessor.get("image_std")
    if preprocessor.get("do_normalize", True) and mean and std:
        unit = preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else 1.0
        facts["mean"], facts["std"] = ([value / unit for value in values] for values in (mean, std))
        facts["band_names"] = RGB if len(mean) == len(RGB) else None
    reduced = preprocessor.get("do_reduce_labels", preprocessor.get("reduce_labels", False))
    return {**facts, "label_offset": int(bool(reduced))}


def read_segformer(config: dict, state_dict: dict[str, Tensor]) -> Translation:
    """Translate SegformerForSemanticSegmentation."""
    need(
        config, num_encoder_blocks=4, sr_ratios=REDUCTIONS, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2),
        num_attention_heads=HEADS, mlp_ratios=(MLP_RATIO,) * 4, hidden_act="gelu",
    )  # fmt: skip
    described = tuple(config["hidden_sizes"]), tuple(config["depths"])
    sizes = {(size.widths, size.depths): name.removeprefix("mit_") for name, size in MIT_SIZES.items()}
    options = {
        "bands": config.get("num_channels", 3),
        "num_classes": count_classes(config),
        "backbone": look_up(sizes, described, "SegFormer"),
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
    weights = rename(merge_projections(newer(state_dict)), rules)
    for key, value in weights.items():
        if re.match(r"decoder\.project\.\d+\.weight", key):
            weights[key] = value[:, :, None, None]  # a linear layer on every pixel is a 1x1 convolution
    fuse = weights["decoder.fuse.conv.weight"].unflatten(1, (4, -1))
    weights["decoder.fuse.conv.weight"] = fuse.flip(1).flatten(1, 2)  # theirs joins the coarsest map first
    return {"name": "segformer", "options": options}, weights


def read_upernet(config: dict, state_dict: dict[str, Tensor]) -> Translation:
    """Translate UperNetForSemanticSegmentation."""
    name, backbone_options, rules = read_backbone(config, "UPerNet")
    options = {
        "bands": config["backbone_config"].get("num_channels", 3),
        "num_classes": count_classes(config),
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
    return {"name": "upernet", "options": options}, rename(merge_projections(newer(state_dict)), rules)


def _conv_rules(theirs: str, ours: str) -> Rules:
    return [(rf"{theirs}\.conv\.", f"{ours}.conv."), (rf"{theirs}\.batch_norm\.", f"{ours}.norm.")]
