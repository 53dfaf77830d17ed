"""Weights of torchvision's FCN, DeepLabV3 and LR-ASPP (https://github.com/pytorch/vision, BSD-3-Clause).

A state dict shows all but the dilations, which torchvision fixes: the two last stages of a ResNet and the
last of MobileNetV3 are dilated, and DeepLab's branches have 12, 24 and 36. Its images are RGB in 0..1 before
normalisation.
"""

import re

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules, rename

# Whether the blocks are bottlenecks, and blocks per stage.
RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# The first tensor of a MobileNet, and MobileNetV3 Large's blocks per stage, the last one a convolution.
MOBILENET = "backbone.0.0.weight"
MOBILENET_STAGES = (1, 2, 3, 4, 2, 3, 1)


def resnet_name(state_dict: dict[str, Tensor], prefix: str) -> str:
    """Return the name of the ResNet whose tensors begin with `prefix`.

    Raises:
        UserError: it is none of the usual five.
    """
    found = [re.match(rf"{re.escape(prefix)}layer(\d)\.(\d+)\.", key) for key in state_dict]
    blocks = {match.groups() for match in found if match}
    depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in (1, 2, 3, 4))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in state_dict
    # A wide or grouped ResNet has the same blocks; its first 3x3 convolution has other channels.
    usual = state_dict.get(f"{prefix}layer1.0.conv2.weight")
    if (bottleneck, depths) not in RESNETS or usual is None or usual.shape[:2] != (64, 64):
        raise UserError(
            f"the weights' backbone is none of {', '.join(RESNETS.values())}; only these can be imported"
        )
    return RESNETS[bottleneck, depths]


def is_torchvision(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these are the weights of a segmentation network of torchvision."""
    heads = ("classifier.0.weight", "classifier.0.convs.0.0.weight", "classifier.cbr.0.weight")
    return any(key in state_dict for key in ("backbone.conv1.weight", MOBILENET)) and any(
        key in state_dict for key in heads
    )


def read_torchvision(state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate the weights of torchvision's `fcn_*`, `deeplabv3_*` or `lraspp_mobilenet_v3_large`.

    Returns:
        The blueprint and the state dict of our network, which `place_weights` loads.

    Raises:
        UserError: another network.
    """
    if not is_torchvision(state_dict):
        raise UserError(
            "these are not the weights of torchvision's FCN, DeepLabV3 or LR-ASPP; only these can be imported"
        )
    options, rules = (_mobilenet if MOBILENET in state_dict else _resnet)(state_dict)
    if "classifier.cbr.0.weight" in state_dict:
        return _lraspp(state_dict, options, rules)
    options["aux"] = False
    if "classifier.0.weight" in state_dict:
        family, last = "fcn", 4
        rules += _fcn_rules("classifier", "decoder", "classifier")
        options |= {
            "channels": state_dict["classifier.0.weight"].shape[0],
            "num_convs": 1,
            "concat_input": False,
            "dropout": 0.1,
        }
    else:
        family, last = "deeplab", 4
        rules += _deeplab_rules()
        options |= {
            "version": "v3",
            "channels": state_dict["classifier.1.weight"].shape[0],
            "dilations": (1, 12, 24, 36),
            "join_dropout": 0.5,
            "num_convs": 1,
            "dropout": 0.0,
        }
    options["num_classes"] = state_dict[f"classifier.{last}.weight"].shape[0]
    if "aux_classifier.0.weight" in state_dict:
        rules += _fcn_rules("aux_classifier", "aux_heads.0.decoder", "aux_heads.0.classifier")
        options["aux_heads"] = ({"channels": state_dict["aux_classifier.0.weight"].shape[0]},)
    return {"name": family, "options": options}, rename(state_dict, rules)


def _resnet(state_dict: dict[str, Tensor]) -> tuple[dict, Rules]:
    """Return the options of a network on a ResNet and the rules of the ResNet."""
    options = {
        "bands": state_dict["backbone.conv1.weight"].shape[1],
        "backbone": resnet_name(state_dict, "backbone."),
        "output_stride": 8,
    }
    return options, [(r"backbone\.", "backbone.body.")]


def _mobilenet(state_dict: dict[str, Tensor]) -> tuple[dict, Rules]:
    """Return the options of a network on MobileNetV3 Large and the rules of the latter.

    Raises:
        UserError: another MobileNet.
    """
    stages = MOBILENET_STAGES
    if state_dict[MOBILENET].shape[0] != 16 or f"backbone.{sum(stages)}.0.weight" not in state_dict:
        raise UserError(
            "the weights' backbone is no MobileNetV3 Large; of torchvision's only this can be imported"
        )
    options = {
        "bands": state_dict[MOBILENET].shape[1],
        "backbone": "mobilenetv3_large_100",
        "backbone_options": {
            "strides": (1, 2, 2, 2, 1, 1),
            "dilations": (1, 1, 1, 1, 1, 2),
            "out_layers": (4, sum(stages)),
        },
    }
    places = [f"backbone.body.blocks.{i}.{j}" for i, number in enumerate(stages) for j in range(number)]
    rules: Rules = [
        (r"backbone\.0\.0\.", "backbone.body.conv_stem."),
        (r"backbone\.0\.1\.", "backbone.body.bn1."),
        (rf"backbone\.{len(places)}\.0\.", f"{places[-1]}.conv."),
        (rf"backbone\.{len(places)}\.1\.", f"{places[-1]}.bn1."),
    ]
    for i, place in enumerate(places[:-1], 1):
        theirs = rf"backbone\.{i}\.block"
        squeezes = f"backbone.{i}.block.2.fc1.weight" in state_dict
        parts = (0, 1, 3) if squeezes else (0, 1, 2) if i > 1 else (0, 1)
        names = ("conv_dw", "conv_pw") if i == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        for j, (part, name) in enumerate(zip(parts, names, strict=True), 1):
            rules += [
                (rf"{theirs}\.{part}\.0\.", f"{place}.{name}."),
                (rf"{theirs}\.{part}\.1\.", f"{place}.bn{j}."),
            ]
        rules += [
            (rf"{theirs}\.2\.fc1\.", f"{place}.se.conv_reduce."),
            (rf"{theirs}\.2\.fc2\.", f"{place}.se.conv_expand."),
        ]
    return options, rules


def _lraspp(state_dict: dict[str, Tensor], options: dict, rules: Rules) -> tuple[dict, dict[str, Tensor]]:
    """Return the blueprint and the weights; the classifiers of both maps become one of the maps together."""
    theirs = {key: x for key, x in state_dict.items() if "_classifier." not in key}
    deep, low = (
        [state_dict[f"classifier.{part}_classifier.{kind}"] for kind in ("weight", "bias")]
        for part in ("high", "low")
    )
    rules += [
        (r"classifier\.cbr\.0\.", "decoder.deep.conv.conv."),
        (r"classifier\.cbr\.1\.", "decoder.deep.conv.norm."),
        (r"classifier\.scale\.1\.", "decoder.deep.gate."),
    ]
    options |= {
        "num_classes": deep[0].shape[0],
        "channels": deep[0].shape[1],
        "gate": "mean",
        "dropout": 0.0,
        "norm_eps": 1e-5,
    }
    weights = rename(theirs, rules)
    weights["classifier.weight"] = torch.cat([deep[0], low[0]], dim=1)
    weights["classifier.bias"] = deep[1] + low[1]
    return {"name": "lraspp", "options": options}, weights


def _fcn_rules(theirs: str, decoder: str, classifier: str) -> Rules:
    return [
        (rf"{theirs}\.0\.", f"{decoder}.convs.0.conv."),
        (rf"{theirs}\.1\.", f"{decoder}.convs.0.norm."),
        (rf"{theirs}\.4\.", f"{classifier}."),
    ]


def _deeplab_rules() -> Rules:
    aspp = "decoder.aspp"
    return [
        (r"classifier\.0\.convs\.4\.1\.", f"{aspp}.pooled.1.conv."),
        (r"classifier\.0\.convs\.4\.2\.", f"{aspp}.pooled.1.norm."),
        (r"classifier\.0\.convs\.(\d)\.0\.", rf"{aspp}.branches.\1.conv."),
        (r"classifier\.0\.convs\.(\d)\.1\.", rf"{aspp}.branches.\1.norm."),
        (r"classifier\.0\.project\.0\.", f"{aspp}.join.conv."),
        (r"classifier\.0\.project\.1\.", f"{aspp}.join.norm."),
        (r"classifier\.1\.", "decoder.refine.0.conv."),
        (r"classifier\.2\.", "decoder.refine.0.norm."),
        (r"classifier\.4\.", "classifier."),
    ]
