"""Weights in the naming of others, and a backbone that they must fill, for the tests of backbones' files."""

import re

import torch

from nets.backbones.pretrained import load_pretrained


def renamed(network: torch.nn.Module, *steps: list[tuple[str, object]]) -> dict[str, torch.Tensor]:
    """Return a network's weights, in each step the first pattern that matches replaced, and a classifier."""
    state = {}
    for name, value in network.state_dict().items():
        key = name
        for patterns in steps:
            pattern, new = next((pair for pair in patterns if re.match(pair[0], key)), ("$", ""))
            key = re.sub(pattern, new, key)
        state[key] = value
    return state | {"linear.weight": torch.zeros(10, 4), "linear.bias": torch.zeros(10)}


def fills(backbone: torch.nn.Module, state: dict, empty: torch.nn.Module, path) -> list[str]:
    """Load a file into another backbone, which must then have the weights of the first."""
    torch.save({"state_dict": state}, path)
    left_out = load_pretrained(empty, path)
    said = tuple(line.split(" ")[0].split(":")[0] for line in left_out)
    for key, value in empty.state_dict().items():
        if key not in said and not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, backbone.state_dict()[key], rtol=0, atol=1e-6)
    return left_out
