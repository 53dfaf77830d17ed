"""Encoders of segmentation_models.pytorch that have names of their own, by the names of our backbones."""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from nets.backbones.catalogue import create_backbone
from nets.errors import UserError
from nets.importers.placing import Rules, rename


class EfficientNetSize(NamedTuple):
    """Of the encoders "efficientnet-b0" and so on: side of the images, and layers whose maps are used."""

    name: str
    side: int
    layers: tuple[int, ...]


# Blocks and last width -> size.
EFFICIENTNET_SIZES = {
    (16, 320): EfficientNetSize("tf_efficientnet_b0", 224, (0, 3, 5, 9, 16)),
    (23, 320): EfficientNetSize("tf_efficientnet_b1", 240, (0, 5, 8, 16, 23)),
    (23, 352): EfficientNetSize("tf_efficientnet_b2", 260, (0, 5, 8, 16, 23)),
    (26, 384): EfficientNetSize("tf_efficientnet_b3", 300, (0, 5, 8, 18, 26)),
    (32, 448): EfficientNetSize("tf_efficientnet_b4", 380, (0, 6, 10, 22, 32)),
    (39, 512): EfficientNetSize("tf_efficientnet_b5", 456, (0, 8, 13, 27, 39)),
    (45, 576): EfficientNetSize("tf_efficientnet_b6", 528, (0, 9, 15, 31, 45)),
    (55, 640): EfficientNetSize("tf_efficientnet_b7", 600, (0, 11, 18, 38, 55)),
}
# Parts of a block of EfficientNet -> timm's.
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
WITH_EXPANSION = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3", **SQUEEZE,
}  # fmt: skip
WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **SQUEEZE,
}  # fmt: skip
# MobileNetV2's blocks per stage.
MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)


def efficientnet(state: dict[str, Tensor]) -> tuple[EfficientNetSize, dict[str, Tensor]]:
    """Return size and weights of an EfficientNet whose tensors' names begin with an underscore.

    Raises:
        UserError: it has none of the known sizes.
    """
    numbers = [int(found[1]) for key in state if (found := re.match(r"_blocks\.(\d+)\.", key))]
    blocks = 1 + max(numbers, default=-1)
    last = state.get(f"_blocks.{blocks - 1}._project_conv.weight")
    size = EFFICIENTNET_SIZES.get((blocks, 0 if last is None else last.shape[0]))
    if size is None:
        raise UserError(f"an EfficientNet of {blocks} blocks cannot be imported; b0 to b7 can")
    with torch.device("meta"):
        stages = create_backbone(size.name, bands=1).body.blocks
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    rules: Rules = [(rf"{theirs}\.", f"{ours}.") for theirs, ours in ends.items()]
    for i, place in enumerate(places):
        names = WITH_EXPANSION if f"_blocks.{i}._expand_conv.weight" in state else WITHOUT_EXPANSION
        rules += [(rf"_blocks\.{i}\.{theirs}\.", f"{place}.{ours}.") for theirs, ours in names.items()]
    return size, rename(state, rules)


def mobilenet_v2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of torchvision's MobileNetV2, with its last convolution as the head."""
    places = [f"blocks.{i}.{j}" for i, number in enumerate(MOBILENET_STAGES) for j in range(number)]
    rules: Rules = [
        (r"features\.0\.0\.", "conv_stem."),
        (r"features\.0\.1\.", "bn1."),
        (rf"features\.{len(places) + 1}\.", "head."),
    ]
    for i, place in enumerate(places, 1):
        parts = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
        if i == 1:
            parts = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
        rules += [
            (rf"features\.{i}\.conv\.{re.escape(theirs)}\.", f"{place}.{ours}.")
            for theirs, ours in parts.items()
        ]
    return rename(state, rules)


def mit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a MiT, with queries, keys and values in one matrix."""
    joined = {}
    for key, tensor in state.items():
        if ".attn.q." in key:
            others = state.get(key.replace(".q.", ".kv."))
            joined[key.replace(".q.", ".qkv.")] = tensor if others is None else torch.cat([tensor, others])
        elif ".attn.kv." not in key:
            joined[key] = tensor
    rules: Rules = []
    for i in range(4):
        theirs, ours = rf"block{i + 1}\.(\d+)", rf"stages.{i}.blocks.\1"
        rules += [
            (rf"patch_embed{i + 1}\.proj\.", f"stages.{i}.embed."),
            (rf"patch_embed{i + 1}\.norm\.", f"stages.{i}.embed_norm."),
            (rf"{theirs}\.attn\.qkv\.", rf"{ours}.attention.qkv."),
            (rf"{theirs}\.attn\.proj\.", rf"{ours}.attention.project."),
            (rf"{theirs}\.attn\.sr\.", rf"{ours}.attention.reduce."),
            (rf"{theirs}\.attn\.norm\.", rf"{ours}.attention.norm."),
            (rf"{theirs}\.mlp\.fc1\.", rf"{ours}.mlp.expand."),
            (rf"{theirs}\.mlp\.dwconv\.dwconv\.", rf"{ours}.mlp.mix."),
            (rf"{theirs}\.mlp\.fc2\.", rf"{ours}.mlp.contract."),
            (rf"{theirs}\.", rf"{ours}."),
            (rf"norm{i + 1}\.", f"stages.{i}.norm."),
        ]
    return rename(joined, rules)
