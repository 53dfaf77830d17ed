"""Weights of torchvision's FCN and DeepLabV3 on ResNet (https://github.com/pytorch/vision, BSD-3-Clause).

A state dict shows all but the dilations, which torchvision fixes: the two last stages are dilated, and
DeepLab's branches have 12, 24 and 36. Its images are RGB in 0..1 before normalisation.
"""

import re

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
    return "backbone.conv1.weight" in state_dict and (
        "classifier.0.weight" in state_dict or "classifier.0.convs.0.0.weight" in state_dict
    )


def read_torchvision(state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Translate the weights of torchvision's `fcn_resnet*` or `deeplabv3_resnet*`.

    Returns:
        The blueprint and the state dict of our network, which `place_weights` loads.

    Raises:
        UserError: another network.
    """
    if not is_torchvision(state_dict):
        raise UserError(
            "these are not the weights of torchvision's FCN or DeepLabV3 on a ResNet; "
            "only these can be imported"
        )
    rules: Rules = [(r"backbone\.", "backbone.body.")]
    options: dict = {
        "bands": state_dict["backbone.conv1.weight"].shape[1],
        "backbone": resnet_name(state_dict, "backbone."),
        "output_stride": 8,
        "aux": False,
    }
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
