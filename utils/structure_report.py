"""What Structure.py prints: a network's layers and costs, and the families and backbones there are."""

import contextlib
import copy
import inspect
import io
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import nn

from nets.backbones.table import describe_backbones
from nets.registry import describe_option, get_builder, list_models, list_options
from utils.data.band_choice import TrainedBands

MOST_NAMES = 20


def describe_checkpoint(network: nn.Module, depth: int) -> list[str]:
    """Return lines on layers (torchinfo), parameters and FLOPs (thop), classes, bands and training options.

    Args:
        network: of `load_network`, with `about`.
        depth: levels of modules in the table.
    """
    import torchinfo  # here and below: the lists of what can be built come without them

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
        f"classes     {_some(classes['names'])} ({network.task})",
        f"ignored     label values {_some(classes.get('ignored', [])) or 'none'}",
        f"bands       {TrainedBands.of(network).describe()}",
        f"scaling     {bands.get('scaling', 'as imported')}",
    ]
    if "epoch" in about:
        metrics = about.get("metrics", {})
        # A run that was saved before its first validation has no score yet.
        score = f", validation mIoU {metrics['mIoU']:.4f}" if metrics else ""
        lines.append(f"trained     {about['epoch']} epochs{score}")
    lines += [
        f"  --{name} {value}" for name, value in about.get("options", {}).items() if value not in (None, "")
    ]
    return lines


def multiply_adds(network: nn.Module, size: tuple[int, int, int, int]) -> float:
    """Return the multiply-adds of one forward pass as thop counts them."""
    import thop

    # thop leaves counters in the modules, and prints.
    with contextlib.redirect_stdout(io.StringIO()):
        return thop.profile(copy.deepcopy(network), inputs=(torch.zeros(size),), verbose=False)[0]


def describe_registry() -> list[str]:
    """Return lines on every network family (idea, variants, options, defaults) and every backbone."""
    lines = ["NETWORKS: --MODEL_TYPE, then what each takes and its default"]
    rows = {family: _option_rows(get_builder(family)) for family in list_models()}
    table = iter(_aligned([row for own in rows.values() for row in own]))
    for family, own in rows.items():
        idea = inspect.getmodule(get_builder(family)).__doc__.splitlines()[0]
        lines += ["", f"{family:<10} {idea}", *(next(table) for _ in own)]
    return [*lines, "", *describe_catalogue()]


def describe_catalogue() -> list[str]:
    """Return lines on every backbone of the catalogue, with what it can do."""
    described = describe_backbones()
    rows = [("name", "strides of the maps", "output strides", "weights", "also called")]
    rows += [
        (
            each["name"],
            ", ".join(map(str, each["strides"])),
            ", ".join(map(str, each["output_strides"])) or "-",
            each["pretrained"] or "-",
            ", ".join(each["short_names"]),
        )
        for each in described
    ]
    heading, *table = _aligned(rows)
    lines = [
        "BACKBONES: --BACKBONE_TYPE, at any number of bands; beside these every network of timm that gives",
        "feature maps, by its name there. Output strides: what dilation can give (option output_stride).",
        "Weights: the library that --PRETRAIN_BACKBONE imagenet has them from.",
        "",
        heading,
    ]
    for paper, group in groupby(zip(described, table, strict=True), lambda pair: pair[0]["paper"]):
        lines += ["", paper, *(line for _, line in group)]
    return lines


def _option_rows(builder: Callable) -> list[tuple[str, str, str]]:
    """Return flag, values and default of the backbone and of every option that people can set."""
    backbone = inspect.signature(builder).parameters["backbone"]
    allowed = describe_option(backbone)
    variants = [*allowed.choices, *(["any backbone"] if allowed.text else [])]
    rows = [("--BACKBONE_TYPE", ", ".join(variants), _in_words(backbone.default))]
    return rows + [
        (f"--MODEL_OPTIONS {name}=", describe_option(option).words, _in_words(option.default))
        for name, option in list_options(builder).items()
    ]


def _in_words(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) or default is None else str(default)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return an indented line per row, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _some(values: list) -> str:
    shown = ", ".join(str(value) for value in values[:MOST_NAMES])
    return shown + (f", ... ({len(values)} in all)" if len(values) > MOST_NAMES else "")
