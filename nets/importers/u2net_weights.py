"""Weights of U2-Net by its authors' names (https://github.com/xuebinqin/U-2-Net, Apache-2.0)."""

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules, rename
from nets.models.u2net import HEIGHTS

MARK = "stage1.rebnconvin.conv_s1.weight"
LEVELS = len(HEIGHTS)
# Classes of the weights of one class, which find salient objects.
CLASS_NAMES = ("background", "object")


def is_u2net(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these are the weights of a U2-Net."""
    return MARK in state_dict and "outconv.weight" in state_dict


def read_u2net(state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor], dict]:
    """Translate the weights of a U2-Net of either size.

    Returns:
        The blueprint, the state dict of our network and arguments of `describe_import`.

    Raises:
        UserError: another network.
    """
    classes = state_dict["side1.weight"].shape[0]
    if state_dict["outconv.weight"].shape[:2] != (classes, LEVELS * classes):
        raise UserError(
            f"this U2-Net has {classes} classes in its side outputs and other ones in the joined output; "
            "it cannot be imported"
        )
    single = classes == 1
    blueprint = {
        "name": "u2net",
        "options": {
            "bands": state_dict[MARK].shape[1],
            "num_classes": 2 if single else classes,
            "backbone": "full" if state_dict["stage2.rebnconvin.conv_s1.weight"].shape[0] == 128 else "small",
        },
    }
    weights = rename(_with_background(state_dict) if single else state_dict, _rules())
    return blueprint, weights, {"class_names": CLASS_NAMES} if single else {}


def _rules() -> Rules:
    rules: Rules = [(r"outconv\.", "classifier.")]
    for i, height in enumerate(HEIGHTS):
        rules.append((rf"side{i + 1}\.", f"scores.{i}."))
        for theirs, ours in (
            (f"stage{i + 1}", f"backbone.stages.{i}"),
            (f"stage{i + 1}d", f"decoder.stages.{i}"),
        ):
            places = {"rebnconvin": "entry", f"rebnconv{height}": "bottom"}
            for j in range(1, height):
                places |= {f"rebnconv{j}": f"down.{j - 1}", f"rebnconv{j}d": f"up.{j - 1}"}
            for name, place in places.items():
                rules += [
                    (rf"{theirs}\.{name}\.conv_s1\.", f"{ours}.{place}.conv."),
                    (rf"{theirs}\.{name}\.bn_s1\.", f"{ours}.{place}.norm."),
                ]
    return rules


def _with_background(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of one class as those of two: softmax([0, x]) is sigmoid(x) of the second."""
    state = dict(state_dict)
    for i in range(LEVELS):
        for part in ("weight", "bias"):
            own = state[f"side{i + 1}.{part}"]
            state[f"side{i + 1}.{part}"] = torch.cat([torch.zeros_like(own), own])
    joined = state["outconv.weight"]
    state["outconv.weight"] = joined.new_zeros(2, 2 * LEVELS, 1, 1)
    state["outconv.weight"][1, 1::2] = joined[0]
    state["outconv.bias"] = torch.cat([torch.zeros_like(state["outconv.bias"]), state["outconv.bias"]])
    return state
