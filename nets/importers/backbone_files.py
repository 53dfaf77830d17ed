"""Files of backbones' weights in the naming of OpenMMLab or of their authors, known by their tensors' names.

Files in timm's and torchvision's naming need none of this (but torchvision's VGG), and so need those of
authors that timm follows: ViT, DeiT, BEiT, MAE, Twins. What a file holds beside the backbone is left out.
"""

import re
from collections.abc import Callable

from torch import Tensor

from nets.backbones.mit import HEADS as MIT_HEADS
from nets.backbones.mit import MIT_SIZES
from nets.backbones.mscan import MLP_RATIOS, MSCAN_SIZES
from nets.importers.authors_backbones import (
    convnext,
    ddrnet,
    merge_mit,
    mit,
    pidnet,
    stdc,
    swin,
    without_biases,
)
from nets.importers.mmseg_ddrnet import backbone_rules as ddrnet_rules
from nets.importers.mmseg_pidnet import backbone_rules as pidnet_rules
from nets.importers.mmseg_stdc import net_rules
from nets.importers.placing import rename
from nets.importers.pyramid_backbones import SWIN_SIZES
from nets.importers.tensor_names import count
from nets.importers.transformer_backbones import TRANSFORMERS
from nets.importers.twins_backbone import SIZES as TWINS_SIZES

State = dict[str, Tensor]
# In front of a backbone's names: of training programs, OpenMMLab's classification and segmentation networks.
PREFIXES = re.compile(r"^((module|backbone|encoder|model|cp)\.)+")


def our_names(name: str, tensors: State) -> State:
    """Return the weights of a backbone by our names, as they are where their naming needs no translation.

    Args:
        name: of the backbone.
        tensors: by the file's names.
    """
    theirs = {f"backbone.{PREFIXES.sub('', key)}": value for key, value in tensors.items()}
    for beginning, mark, translate in FORMATS:
        if name.startswith(beginning) and any(re.match(rf"backbone\.{mark}", key) for key in theirs):
            rules, *functions = translate(name, theirs)
            for function in functions:
                theirs = function(theirs)
            # No place: the layers for classification, heads, buffers.
            return rename(theirs, [*rules, (r"", None)])
    return tensors


def _openmmlab(describe: Callable[[str, State], dict]) -> Callable[[str, State], list]:
    """Return the translation of OpenMMLab's naming of a backbone whose section `describe` makes."""

    def translate(name: str, theirs: State) -> list:
        section = describe(name, theirs)
        _, _, rules, convert = TRANSFORMERS[section["type"]](section)
        return [rules, *([convert] if convert else [])]

    return translate


def _mit(name: str, theirs: State) -> dict:
    size = MIT_SIZES[name]
    section = {"type": "MixVisionTransformer", "embed_dims": size.widths[0], "num_layers": size.depths}
    return section | {"num_heads": MIT_HEADS}


def _mscan(name: str, theirs: State) -> dict:
    size = MSCAN_SIZES[name]
    section = {"type": "MSCAN", "embed_dims": size.widths, "depths": size.depths}
    return section | {"mlp_ratios": MLP_RATIOS, "norm_cfg": {"type": "BN"}}


def _swin(name: str, theirs: State) -> dict:
    width, depths, heads, window = next(size for size, own in SWIN_SIZES.items() if own == name)
    section = {"type": "SwinTransformer", "embed_dims": width, "depths": depths, "num_heads": heads}
    return section | {"window_size": window}


def _twins(name: str, theirs: State) -> dict:
    kind, depths, widths, heads, ratios = next(size for size, own in TWINS_SIZES.items() if own == name)
    section = {"type": kind, "depths": depths, "embed_dims": widths, "num_heads": heads, "mlp_ratios": ratios}
    section |= {"qkv_bias": True, "sr_ratios": (8, 4, 2, 1), "norm_cfg": {"type": "LN"}}
    return section | ({"windiow_sizes": (7, 7, 7, 7)} if kind == "SVT" else {})


def _poolformer(name: str, theirs: State) -> dict:
    return {"type": "PoolFormer", "arch": name.removeprefix("poolformer_"), "out_indices": (0, 2, 4, 6)}


def _convnext(name: str, theirs: State) -> dict:
    section = {"type": "ConvNeXt", "arch": name.split("_")[1], "out_indices": (0, 1, 2, 3)}
    return section | {"gap_before_final_norm": False, "linear_pw_conv": False}


def _plain(name: str, theirs: State) -> dict:
    depth = count(theirs, r"backbone\.layers\.(\d+)\.")
    relative = "backbone.layers.0.attn.qkv.weight" in theirs
    return {
        "type": "BEiT" if relative else "VisionTransformer",
        "num_layers": depth,
        "out_indices": tuple(range(depth)),
    }


def _vgg(name: str, theirs: State) -> list:
    """Return the rules of torchvision's VGG; its fully connected layers are convolutions here."""
    rules = [
        (r"backbone\.features\.", "backbone.features."),
        (r"backbone\.classifier\.0\.", "backbone.pre_logits.fc1."),
        (r"backbone\.classifier\.3\.", "backbone.pre_logits.fc2."),
    ]
    return [rules, _as_convolutions]


def _as_convolutions(theirs: State) -> State:
    sides = {"backbone.classifier.0.weight": 7, "backbone.classifier.3.weight": 1}
    return {
        key: value.unflatten(1, (-1, sides[key], sides[key])) if key in sides else value
        for key, value in theirs.items()
    }


# Beginning of the backbone's name, pattern of a tensor that tells the format, rules and conversions.
FORMATS: list[tuple[str | tuple[str, ...], str, Callable[[str, State], list]]] = [
    ("mit_", r"layers\.0\.0\.projection\.", _openmmlab(_mit)),
    ("mit_", r"block1\.0\.attn\.kv\.", lambda name, theirs: [mit(), merge_mit]),
    ("mscan_", r"patch_embed1\.proj\.", _openmmlab(_mscan)),
    (tuple(SWIN_SIZES.values()), r"stages\.0\.blocks\.0\.attn\.w_msa\.", _openmmlab(_swin)),
    ("swin_", r"layers\.0\.downsample\.", lambda name, theirs: [swin()]),
    ("twins_", r"position_encodings\.0\.", _openmmlab(_twins)),
    ("poolformer_", r"network\.0\.0\.", _openmmlab(_poolformer)),
    ("convnext_", r"stages\.0\.0\.depthwise_conv\.", _openmmlab(_convnext)),
    ("convnext_", r"stages\.0\.0\.dwconv\.", lambda name, theirs: [convnext()]),
    (("vit_", "deit_", "beit_", "mae_"), r"layers\.0\.ln1\.", _openmmlab(_plain)),
    ("vgg", r"classifier\.0\.", _vgg),
    ("stdc", r"stages\.2\.0\.layers\.", lambda name, theirs: [net_rules(r"backbone\.", _bottleneck(theirs))]),
    ("stdc", r"features\.2\.conv_list\.", lambda name, theirs: [stdc(name)]),
    ("ddrnet", r"context_branch_layers\.", lambda name, theirs: [ddrnet_rules(), without_biases]),
    ("ddrnet", r"layer3_\.0\.", lambda name, theirs: [ddrnet(("3", "4")), without_biases]),
    ("ddrnet", r"layer3_1_\.0\.", lambda name, theirs: [ddrnet(("3_1", "3_2", "4")), without_biases]),
    ("pidnet", r"i_branch_layers\.", lambda name, theirs: [pidnet_rules(), without_biases]),
    ("pidnet", r"layer3_d\.", lambda name, theirs: [pidnet(), without_biases]),
]


def _bottleneck(theirs: State) -> str:
    return "add" if "backbone.stages.2.0.skip.0.conv.weight" in theirs else "cat"
