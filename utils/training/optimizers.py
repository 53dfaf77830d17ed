"""Optimisers and their parameter groups."""

import torch
from torch import nn
from torch.optim import Optimizer

from nets.backbones.depth import find_layers
from nets.errors import UserError
from utils.training.optimizer_names import OptimizerKind, find_optimizer
from utils.training.recipe import Settings

BATCH_NORM = nn.modules.batchnorm._BatchNorm
NORMS = (BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
BACKBONE = "backbone."


def parameter_groups(network: nn.Module, settings: Settings) -> list[dict]:
    """Return groups {"name", "params", "lr", "weight_decay"}: parts of one rate, with and without decay.

    Raises:
        UserError: factors for a backbone or its layers on a network without.
    """
    layers = _layers(network, settings)
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, dict] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        part, factor = _part(name, layers, settings)
        decay = not _spared(name, parameter, settings.no_decay, is_norm=id(parameter) in norms)
        key = part if decay else f"{part}, no decay"
        rates = {"lr": settings.lr * factor, "weight_decay": settings.weight_decay if decay else 0.0}
        groups.setdefault(key, {"name": key, "params": [], **rates})["params"].append(parameter)
    # The log shows the rate of the first group: one without a factor where there is one.
    return sorted(groups.values(), key=lambda group: group["lr"] != settings.lr)


def _layers(network: nn.Module, settings: Settings) -> dict[str, int]:
    """Return the layer of each parameter of the backbone where the rates fall from layer to layer."""
    factors = {"LAYER_DECAY": settings.layer_decay, "BACKBONE_LR_FACTOR": settings.backbone_lr_factor}
    changed = [f"--{flag} {factor:g}" for flag, factor in factors.items() if factor != 1]
    if changed and not any(name.startswith(BACKBONE) for name, _ in network.named_parameters()):
        raise UserError(f"{changed[0]}: this network has no backbone apart from the rest; leave it out")
    try:
        return find_layers(network.backbone, settings.layer_unit) if settings.layer_decay != 1 else {}
    except ValueError as error:
        raise UserError(f"--LAYER_DECAY {settings.layer_decay:g}: {error}; give --LAYER_DECAY 1") from error


def _part(name: str, layers: dict[str, int], settings: Settings) -> tuple[str, float]:
    """Return the part of the network that a parameter belongs to and the factor on its learning rate."""
    if not layers and settings.head_lr_factor == settings.backbone_lr_factor == 1:
        return "all", 1.0
    if not name.startswith((BACKBONE, *settings.with_backbone)):
        return "head", settings.head_lr_factor
    layer = layers.get(name.removeprefix(BACKBONE))
    if layer is None:
        return "backbone", settings.backbone_lr_factor
    # The head is one above the deepest, or more where a recipe counts fewer.
    below = max((settings.layer_count or max(layers.values())) + 1 - layer, 0)
    return f"backbone layer {layer}", settings.backbone_lr_factor * settings.layer_decay**below


def _spared(name: str, parameter: nn.Parameter, no_decay: tuple[str, ...], *, is_norm: bool) -> bool:
    """Return whether a parameter has no weight decay."""
    kinds = {"norm": is_norm, "vector": parameter.ndim <= 1}
    return any(kinds.get(part, part in name) for part in no_decay)


def freeze_norms(network: nn.Module, settings: Settings) -> None:
    """Keep weights and biases of the backbone's batch norms where `settings` say so.

    They still normalise by each batch. To be called before a network is wrapped for several processes: the
    wrapper waits for the gradient of what had to be trained then.
    """
    for module in network.backbone.modules() if settings.frozen_norm else ():
        if isinstance(module, BATCH_NORM):
            module.requires_grad_(requires_grad=False)


def describe_groups(optimizer: Optimizer) -> list[dict]:
    """Return {"group", "tensors", "parameters", "lr", "weight_decay"} of each group, in plain values.

    The learning rate is the initial one without warm-up.
    """
    return [
        {
            "group": group["name"],
            "tensors": len(group["params"]),
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            "lr": group.get("initial_lr", group["lr"]),
            "weight_decay": group["weight_decay"],
        }
        for group in optimizer.param_groups
    ]


def fused(kind: OptimizerKind, device: torch.device | str) -> dict[str, bool]:
    """Return the argument that makes a step one kernel, for optimisers that have it on a device."""
    on_gpu = torch.device(device).type == "cuda"
    return {"fused": True} if on_gpu and "fused" in kind.defaults else {}


def build_optimizer(network: nn.Module, settings: Settings, device: torch.device | str = "cpu") -> Optimizer:
    """Return the optimiser that `settings` name over what they leave to be trained of the network."""
    groups = parameter_groups(network, settings)
    kind = find_optimizer(settings.optimizer)
    return kind.create(groups, settings.lr, settings.momentum, **fused(kind, device))
