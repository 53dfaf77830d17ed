"""Maxima that tie: the one thing in which a faithful file of a network that unpools may differ from it.

SegNet and ENet put a value where the maximum of a 2x2 cell was found. Where two candidates are equal but for
the last bit, another runtime, which sums in another order, finds the other one, and the value moves by a
pixel. So does the network itself between two devices. To tell this from a wrong file, the network is run
once more with the file's own maxima, but only where they tie, and must then give what the file gives.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nets.layers.unpool import MaxUnpool, find_maxima, unpool

# Two values tie that differ by less, as a share of the map's largest; another order of summation changes
# convolutions of float32 by a tenth of it.
TIE = 1e-5

FindMaxima = Callable[[Tensor], list[Tensor]]


def unpools(network: nn.Module) -> bool:
    """Return whether any part of a network puts values where maxima were found."""
    return any(isinstance(module, MaxUnpool) for module in network.modules())


def onnx_maxima(path: Path) -> FindMaxima:
    """Return a function from images to the maxima that an ONNX file finds, one (B, C, h, w) per unpooling.

    They count through the map, row * W + column, and come in the order of the network's unpooling.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    pools = [node for node in model.graph.node if node.op_type == "MaxPool" and _gives_maxima(node)]
    for node in pools:
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in _ends(node))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for node in pools for name in _ends(node)]

    def find(images: Tensor) -> list[Tensor]:
        found = [torch.from_numpy(each) for each in session.run(names, {"images": images.numpy()})]
        # ONNX counts through the whole tensor.
        return [at % (of.shape[-2] * of.shape[-1]) for of, at in zip(found[::2], found[1::2], strict=True)]

    return find


def _gives_maxima(node: Any) -> bool:
    """Return whether an ONNX node pools 2x2 cells and says where it finds the maxima."""
    kernel = next(list(each.ints) for each in node.attribute if each.name == "kernel_shape")
    return kernel == [2, 2] and len(node.output) == 2


def _ends(node: Any) -> tuple[str, str]:
    """Return the names of what a node pools and of the places it finds."""
    return node.input[0], node.output[1]


class Ties:
    """How often a file's maxima were taken.

    Attributes:
        count: maxima in another place than the network's own, with a value that ties with it.
    """

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def tied_as_in_file(network: nn.Module, maxima: list[Tensor]) -> Iterator[Ties]:
    """Let a network unpool to a file's maxima where they tie with its own, else to its own.

    Args:
        network: one that unpools.
        maxima: of the file on the images that are to come, as `onnx_maxima` gives them.
    """
    ties, following = Ties(), iter(maxima)

    def again(_module: nn.Module, inputs: tuple[Tensor, Tensor], _output: Tensor) -> Tensor:
        x, pooled = inputs
        own, other = find_maxima(pooled), next(following, None)
        if other is None or other.shape != own.shape:
            return unpool(x, own, pooled)
        tied = (own != other) & _tie(pooled, own, other)
        ties.count += int(tied.sum())
        return unpool(x, torch.where(tied, other, own), pooled)

    hooks = [m.register_forward_hook(again) for m in network.modules() if isinstance(m, MaxUnpool)]
    try:
        yield ties
    finally:
        for hook in hooks:
            hook.remove()


def _tie(pooled: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return where two places lie in the same cell and have the same value but for rounding."""
    width = pooled.shape[-1]
    cells = [(at // width // 2, at % width // 2) for at in (own, other)]
    same = (cells[0][0] == cells[1][0]) & (cells[0][1] == cells[1][1])
    best, found = (pooled.flatten(2).gather(2, at.flatten(2)).view_as(at) for at in (own, other))
    return same & (best - found <= TIE * pooled.abs().max())
