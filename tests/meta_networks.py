"""Networks without memory for their weights: what they are made of, for tests."""

import torch
from torch import nn

from nets import create_model


def build(family: str, *, bands: int = 3, num_classes: int = 19, **options) -> nn.Module:
    """Return a network in evaluation mode on the device "meta"."""
    with torch.device("meta"):
        return create_model(family, bands=bands, num_classes=num_classes, **options).eval()


def shapes(network: nn.Module, size: tuple[int, int], kinds: type | tuple[type, ...]) -> list[tuple]:
    """Return (channels, height, width) of what each module of some kinds gives, in order."""
    found = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(
                lambda _module, _inputs, output: found.append(tuple(output.shape[1:]))
            )
    logits = network(torch.empty(1, network.bands, *size, device="meta"))["logits"]
    assert logits.shape == (1, network.num_classes, *size)
    return found


def count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
