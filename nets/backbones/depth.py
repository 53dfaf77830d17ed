"""How deep each parameter of a backbone sits, for learning rates that fall from layer to layer."""

import re
from typing import Literal

import timm
import torch
from timm.models import group_parameters
from torch import nn

from nets.backbones.catalogue import find_entry
from nets.backbones.vit import ViT

# ConvNeXt's authors, who count by stages, count the halvings between two stages to the stem
# (https://github.com/facebookresearch/ConvNeXt, semantic_segmentation; MMSegmentation does the same).
BETWEEN_STAGES = re.compile(r"stages\.\d+\.downsample\.")
# In front of timm's names in our backbones.
PREFIX = re.compile(r"body\.(model\.)?")


def find_layers(backbone: nn.Module, unit: Literal["block", "stage"] = "block") -> dict[str, int]:
    """Return the layer of each parameter of a timm network, as timm groups them.

    Layer 0 is the stem with position tables and tokens; the blocks, or stages, count from 1 to the deepest.
    What is not timm's, as norms on its maps, has no layer and is left out.

    Args:
        backbone: as `create_backbone` builds it, or a `ViT`.
        unit: what counts as a layer.

    Raises:
        ValueError: the backbone is no network of timm, or was changed inside.
    """
    if isinstance(backbone, ViT):
        return backbone.find_layers()
    entry = find_entry(backbone.name)
    if entry is not None and entry.library != "timm":
        raise ValueError(f"backbone {backbone.name} is not timm's and states no layers")
    network, arguments = (backbone.name, {}) if entry is None else (entry.network, entry.arguments)
    with torch.device("meta"):
        whole = timm.create_model(network, pretrained=False, num_classes=0, **arguments)
    layers = group_parameters(whole, whole.group_matcher(coarse=unit == "stage"), reverse=True)
    if unit == "stage":
        layers = {name: 0 if BETWEEN_STAGES.match(name) else layer for name, layer in layers.items()}
    # Where timm takes a network apart for its maps, it joins the first two parts of a name by "_".
    layers |= {name.replace(".", "_", 1): layer for name, layer in layers.items()}
    theirs = {name: PREFIX.sub("", name, 1) for name, _ in backbone.named_parameters() if PREFIX.match(name)}
    unknown = [name for name, short in theirs.items() if short not in layers]
    if unknown:
        raise ValueError(f"backbone {backbone.name}: timm's {network} has no parameter {unknown[0]}")
    return {name: layers[short] for name, short in theirs.items()}
