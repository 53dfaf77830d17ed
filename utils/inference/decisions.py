"""From probabilities to what a pixel is: one of K classes, or any of them."""

import math

import torch
from torch import Tensor, nn

THRESHOLD = 0.5  # of several labels, from here on a class is present


def decide(probabilities: Tensor, task: str) -> Tensor:
    """Map probabilities (..., K, h, w) to class ids (..., h, w); of several labels to 1 and 0 in K planes."""
    if task == "multilabel":
        return (probabilities >= THRESHOLD).long()
    # `max` of PyTorch is four times as fast as its `argmax` over the first dimension.
    return probabilities.max(-3).indices


def decide_outputs(network: nn.Module, outputs: dict[str, Tensor]) -> Tensor:
    """Map the outputs of a network to class ids (B, H, W); of several labels to 1 and 0 (B, K, H, W)."""
    if network.task == "multilabel":
        return decide(network.probabilities(outputs), network.task)
    return outputs["logits"].argmax(1)  # that of the probabilities, which need not be computed


def confidence(probabilities: Tensor, task: str) -> Tensor:
    """Map probabilities (K, h, w) to the decision's (1, h, w); of several labels the least sure one's."""
    if task == "multilabel":
        return torch.maximum(probabilities, 1 - probabilities).amin(0, keepdim=True)
    return probabilities.amax(0, keepdim=True)


def entropy(probabilities: Tensor, task: str) -> Tensor:
    """Map probabilities (K, h, w) to how undecided they are (1, h, w), from 0 to 1.

    1 is reached where all classes have the same probability; of several labels, where each has one half.
    """
    if task == "multilabel":
        p = probabilities.clamp(0, 1)
        each = torch.special.entr(p) + torch.special.entr(1 - p)
        return each.mean(0, keepdim=True) / math.log(2)
    total = torch.special.entr(probabilities.clamp_min(0)).sum(0, keepdim=True)
    return total / math.log(max(2, len(probabilities)))
