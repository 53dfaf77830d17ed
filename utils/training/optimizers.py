"""Optimisers and their parameter groups."""

import torch
from torch import nn
from torch.optim import Optimizer

from utils.training.recipe import Settings

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def parameter_groups(network: nn.Module, settings: Settings) -> list[dict]:
    """Return groups {"name", "params", "lr", "weight_decay"}: backbone and head, with and without decay."""
    spared = {
        id(parameter)
        for module in network.modules()
        if "norm" in settings.no_decay and isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    parts = [part for part in settings.no_decay if part != "norm"]
    groups: dict[str, dict] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        head = settings.head_lr_factor != 1 and not name.startswith("backbone.")
        decay = id(parameter) not in spared and not any(part in name for part in parts)
        key = ("head" if head else "backbone" if settings.head_lr_factor != 1 else "all") + (
            "" if decay else ", no decay"
        )
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "lr": settings.lr * (settings.head_lr_factor if head else 1.0),
                "weight_decay": settings.weight_decay if decay else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(network: nn.Module, settings: Settings) -> Optimizer:
    """Return the optimiser that `settings` name over the network's parameter groups."""
    groups = parameter_groups(network, settings)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
