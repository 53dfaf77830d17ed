"""The formats: how a network is written, and how its file is run for the check."""

import importlib.util
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from nets.errors import UserError
from utils.deployment.check import example
from utils.deployment.metadata import KEY, to_text
from utils.deployment.ties import FindMaxima, onnx_maxima

ONNX_LIMIT = 2**31  # bytes of a protobuf message
# TorchScript keeps what is true of the traced size alone: odd on every level, it is hardly a special one.
_EVEN, _ODD = (96, 160), (97, 161)

Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """Maps images to probabilities: all that is left of a network outside this project."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) in data units, NaN where invalid, to probabilities (B, K, H, W)."""
        return self.network.probabilities(self.network(images))


def export_program(network: nn.Module) -> torch.export.ExportedProgram:
    """Return the network's graph for any batch, height and width."""
    return trace(Deployed(network).eval(), example(network, 2, _EVEN), network.min_size)


def trace(module: nn.Module, images: Tensor, least: int) -> torch.export.ExportedProgram:
    """Return a module's graph for any batch, and any height and width.

    Args:
        module: maps images (B, C, H, W).
        images: an example, whose sizes are nothing special.
        least: smallest height and width.
    """
    batch = side = torch.export.Dim.DYNAMIC
    if callable(side):  # not in torch 2.6
        side = side(min=least)
    more = {}
    # New in torch 2.8. Sizes of maps inside are compared at run time, not proven beforehand.
    if "prefer_deferred_runtime_asserts_over_guards" in inspect.signature(torch.export.export).parameters:
        more["prefer_deferred_runtime_asserts_over_guards"] = True
    shapes = ({0: batch, 2: side, 3: side},)
    with torch.no_grad(), _quiet(), _any_size():
        program = torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False, **more)
    _drop_inequalities(program.graph_module.graph)
    return program


def _any_size() -> AbstractContextManager:
    """Let maps inside be one pixel wide too: else each size behind a stride must be known to be 1 or not.

    Where torch lacks this option (2.6 does, and it is an experimental one), a .pt2 file refuses small images
    that make the network's deepest map one pixel.
    """
    if hasattr(_config, "backed_size_oblivious"):
        return _config.patch(backed_size_oblivious=True)
    return nullcontext()


def write_onnx(network: nn.Module, path: Path) -> None:
    """Write an ONNX file.

    Raises:
        UserError: a package is missing, or the network is larger than an ONNX file may be.
    """
    require_onnx("onnx", "onnxscript", "onnxruntime")
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size >= ONNX_LIMIT:
        raise UserError(
            f"the weights take {size / 2**30:.1f} GiB, an ONNX file holds 2; use --FORMAT torch_export"
        )
    program = export_program(network)
    names = {"input_names": ["images"], "output_names": ["probabilities"]}
    with _quiet():
        program = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    if hasattr(program, "rename_axes"):  # new in torch 2.9
        sides = program.model.graph.inputs[0].shape
        program.rename_axes({sides[0]: "batch", sides[2]: "height", sides[3]: "width"})
    program.model.metadata_props[KEY] = to_text(network)
    program.save(path, external_data=False)


def run_onnx(path: Path) -> Run:
    """Return a function that runs an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def write_torch_export(network: nn.Module, path: Path) -> None:
    """Write the network's graph as PyTorch's own file."""
    program = export_program(network)
    _rewrite_ceil(program.graph_module.graph)
    with _quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={f"{KEY}.json": to_text(network)})


def _rewrite_ceil(graph: torch.fx.Graph) -> None:
    """Write math.ceil(a / b), which timm's "same" padding has, as -(-a // b), which a .pt2 file can hold."""
    for node in graph.find_nodes(op="call_function", target=math.ceil):
        quotient = node.args[0]
        with graph.inserting_before(node):
            value = quotient.args[0]
            for function, *more in ((operator.neg,), (operator.floordiv, quotient.args[1]), (operator.neg,)):
                value = _insert(graph, function, value, *more)
        node.replace_all_uses_with(value)
        graph.erase_node(node)
        if not quotient.users:
            graph.erase_node(quotient)
    graph.owning_module.recompile()


def _drop_inequalities(graph: torch.fx.Graph) -> None:
    """Leave out that certain sizes must not be 1.

    Tracing notes it wherever PyTorch has a shortcut for 1, which gives the same as the way traced; the
    check runs the file on batches and maps of 1.
    """
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        if str(node.args[1]).startswith("Runtime assertion failed for expression Ne("):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.owning_module.recompile()


def _insert(graph: torch.fx.Graph, function: Callable, *arguments: object) -> torch.fx.Node:
    node = graph.call_function(function, arguments)
    values = [each.meta["val"] if isinstance(each, torch.fx.Node) else each for each in arguments]
    node.meta["val"] = function(*values)
    return node


def run_torch_export(path: Path) -> Run:
    """Return a function that runs a .pt2 file; only for a file of one's own, others may hold code."""
    with _quiet(), path.open("rb") as file:
        return torch.export.load(file).module()


def write_torchscript(network: nn.Module, path: Path) -> None:
    """Write a trace as TorchScript."""
    with torch.no_grad(), _quiet():
        images = example(network, 2, _ODD)
        trace = torch.jit.trace(Deployed(network).eval(), (images,), check_trace=False)
        torch.jit.save(trace, str(path), _extra_files={f"{KEY}.json": to_text(network)})


def run_torchscript(path: Path) -> Run:
    """Return a function that runs a TorchScript file."""
    with _quiet():
        return torch.jit.load(str(path), map_location="cpu")


class Format(NamedTuple):
    """A format.

    Attributes:
        title: its name in words.
        ending: of its files.
        write: (network, path).
        run: path -> images -> probabilities.
        maxima: path -> images -> the maxima that the file finds, where it may find others than the network.
    """

    title: str
    ending: str
    write: Callable[[nn.Module, Path], None]
    run: Callable[[Path], Run]
    maxima: Callable[[Path], FindMaxima] | None = None


FORMATS = {
    "onnx": Format("ONNX", ".onnx", write_onnx, run_onnx, onnx_maxima),
    "torch_export": Format("torch.export", ".pt2", write_torch_export, run_torch_export),
    "torchscript": Format("TorchScript", ".torchscript", write_torchscript, run_torchscript),
}


def require_onnx(*packages: str) -> None:
    """Raise a `UserError` where a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX files need {', '.join(missing)}; pip install {' '.join(missing)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what PyTorch says to its own developers, and that it no longer develops TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
