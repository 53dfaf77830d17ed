"""Starting values of weights."""

import math
from typing import Literal

from torch import nn

InitType = Literal["kaiming", "normal", "xavier", "orthogonal"]


def init_weights(module: nn.Module) -> None:
    """Start convolutions He-normal (fan out, per group), linear layers truncated normal 0.02, biases zero.

    He et al., "Delving Deep into Rectifiers", ICCV 2015, https://arxiv.org/abs/1502.01852; the linear layers
    as the vision transformers do it. Norm layers keep PyTorch's ones and zeros.
    """
    for layer in module.modules():
        if getattr(layer, "starts_at_zero", False):
            nn.init.zeros_(layer.weight)
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def start_at_zero(layer: nn.Module) -> nn.Module:
    """Return the layer, marked as the last of a residual branch: its weight starts at zero."""
    layer.starts_at_zero = True
    nn.init.zeros_(layer.weight)
    return layer


def init_classifier(classifier: nn.Conv2d) -> None:
    """Start a classifier by Glorot and Bengio's rule (AISTATS 2010): its input and output weigh alike.

    The usual normal 0.01 takes the first hundred iterations to grow, which a short run does not have.
    """
    nn.init.xavier_uniform_(classifier.weight)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)


def start_uniform(module: nn.Module) -> None:
    """Start convolutions as the authors of Mask R-CNN and of MaskFormer do: uniform (fan in), biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def reinitialize(network: nn.Module, how: InitType) -> None:
    """Start all convolutions and linear layers by one rule.

    "kaiming" leaves the network as it was built: each family and backbone has started itself by its rules.
    Layers with `own_start`, as an enlargement that starts as interpolation, keep theirs in any case.
    """
    rules = {
        "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
        "xavier": nn.init.xavier_normal_,
        "orthogonal": nn.init.orthogonal_,
    }
    if how == "kaiming":
        return
    for layer in network.modules():
        if getattr(layer, "own_start", False):
            continue
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            rules[how](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
