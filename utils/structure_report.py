"""What Structure.py prints: a network's layers and costs, and the families that can be built."""

import contextlib
import copy
import inspect
import io
import typing

import thop
import torch
import torchinfo
from torch import nn

from nets.registry import get_builder, list_models

MOST_NAMES = 20


def describe_checkpoint(network: nn.Module, depth: int) -> list[str]:
    """Return lines on layers (torchinfo), parameters and FLOPs (thop), classes, bands and training options.

    Args:
        network: of `load_network`, with `about`.
        depth: levels of modules in the table.
    """
    about = network.about
    height, width = about.get("crop_size") or (512, 512)
    size = (1, network.bands, height, width)
    table = torchinfo.summary(network, input_size=size, depth=depth, verbose=0, device="cpu")
    blueprint = network.blueprint
    classes, bands = about["classes"], about.get("bands", {})
    lines = [
        str(table),
        "",
        f"network     {blueprint['name']}",
        *(f"            {name} = {value}" for name, value in blueprint["options"].items()),
        f"parameters  {sum(p.numel() for p in network.parameters()):,}",
        f"FLOPs       {2 * multiply_adds(network, size) / 1e9:.2f} G at {network.bands}x{height}x{width} "
        "(thop: two per multiply-add; what happens inside attention kernels is not counted)",
        f"classes     {_some(classes['names'])}",
        f"ignored     label values {_some(classes.get('ignored', [])) or 'none'}",
        f"bands       {_some(bands.get('names', [str(network.bands)]))}",
        f"scaling     {bands.get('scaling', 'as imported')}",
    ]
    if "epoch" in about:
        metrics = about.get("metrics", {})
        lines.append(f"trained     {about['epoch']} epochs, validation mIoU {metrics.get('mIoU', 0):.4f}")
    lines += [
        f"  --{name} {value}" for name, value in about.get("options", {}).items() if value not in (None, "")
    ]
    return lines


def multiply_adds(network: nn.Module, size: tuple[int, int, int, int]) -> float:
    """Return the multiply-adds of one forward pass as thop counts them."""
    # thop leaves counters in the modules, and prints.
    with contextlib.redirect_stdout(io.StringIO()):
        return thop.profile(copy.deepcopy(network), inputs=(torch.zeros(size),), verbose=False)[0]


def describe_registry() -> list[str]:
    """Return lines on every network family: idea, backbones, options with their defaults."""
    lines = []
    for family in list_models():
        builder = get_builder(family)
        idea = inspect.getmodule(builder).__doc__.splitlines()[0]
        lines += [family, f"  {idea}"]
        for name, parameter in inspect.signature(builder).parameters.items():
            if name in ("bands", "num_classes"):
                continue
            flag = "--BACKBONE_TYPE" if name == "backbone" else f"--MODEL_OPTIONS {name}="
            lines.append(f"  {flag:<36} {_allowed(parameter)} (default: {parameter.default})")
        lines.append("")
    return lines


def _allowed(parameter: inspect.Parameter) -> str:
    """Return what a builder's option takes, in words."""
    names = {int: "whole number", float: "number", bool: "true or false", str: "name", type(None): "none"}
    kinds = (
        typing.get_args(parameter.annotation) if _is_union(parameter.annotation) else (parameter.annotation,)
    )
    words = []
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            words.append(", ".join(map(str, typing.get_args(kind))))
        elif typing.get_origin(kind) is tuple:
            words.append("numbers as in 1,2,3")
        else:
            words.append(names.get(kind, str(kind)))
    return " or ".join(words)


def _is_union(annotation: object) -> bool:
    return type(None) in typing.get_args(annotation)


def _some(values: list) -> str:
    shown = ", ".join(str(value) for value in values[:MOST_NAMES])
    return shown + (f", ... ({len(values)} in all)" if len(values) > MOST_NAMES else "")
