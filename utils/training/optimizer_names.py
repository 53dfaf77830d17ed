"""Optimisers by name: those of torch.optim, and timm's where PyTorch has none of that name."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers
from torch.optim import Optimizer

from nets.errors import UserError
from nets.registry import nearest, plain

# What each wants that a training step does not give; timm's Muon takes parameters of any shape.
UNUSABLE = {"lbfgs": "a function to call again", "sparseadam": "sparse gradients"}
WITHOUT_TORCH = ("optimizer", "muon")
# Where PyTorch's own defaults are not the usual ones for segmentation.
SGD = {"lr": 0.01, "weight_decay": 1e-4, "momentum": 0.9}
USUAL = {"sgd": SGD, "nesterov": SGD, "momentum": SGD}
TIMM_MOMENTUM = 0.9  # what timm's own factory gives where a class has none by default
# For an optimiser that states none.
FALLBACK_LR = 1e-3


@dataclass(frozen=True)
class OptimizerKind:
    """An optimiser and what it is set to where nobody says otherwise.

    Attributes:
        name: its name without case.
        build: (parameter groups, keywords) -> optimiser.
        defaults: of its keywords.
    """

    name: str
    build: Callable[..., Optimizer]
    defaults: Mapping[str, object]

    def usual(self, setting: str) -> float | None:
        """Return the usual "lr", "weight_decay" or "momentum"; None for a momentum that it has not."""
        if setting in USUAL.get(self.name, {}):
            return USUAL[self.name][setting]
        if setting == "momentum" and "momentum" not in self.defaults:
            betas = self.defaults.get("betas")
            return betas[0] if betas else None
        value = self.defaults.get(setting)
        given = isinstance(value, (int, float))
        return float(value) if given else FALLBACK_LR if setting == "lr" else 0.0

    def create(self, groups: list[dict], lr: float, momentum: float | None, **keywords: object) -> Optimizer:
        """Return the optimiser; the momentum is that of SGD or the first of Adam's betas."""
        keywords["lr"] = lr
        if momentum is not None and "momentum" in self.defaults:
            keywords["momentum"] = momentum
        elif momentum is not None and "betas" in self.defaults:
            keywords["betas"] = (momentum, *self.defaults["betas"][1:])
        return self.build(groups, **keywords)


def find_optimizer(name: str) -> OptimizerKind:
    """Return an optimiser by its name; case, hyphens and underscores do not matter.

    Raises:
        UserError: no such optimiser, one that a training step cannot drive, or one whose package is missing.
    """
    key = plain(name)
    ours = _torch_optimizers()
    if key in UNUSABLE:
        raise UserError(f"--OPTIMIZER_TYPE {name} is given; it needs {UNUSABLE[key]}, choose another one")
    if key in ours:
        return _describe(key, ours[key])
    if key not in list_optimizers():
        known = sorted({*ours, *list_optimizers()} - UNUSABLE.keys())
        near = nearest(name, known)
        raise UserError(
            f"there is no optimiser {name!r}{near}; adam, adamw, sgd and all of torch.optim and timm exist"
        )
    if get_optimizer_info(key).second_order:
        raise UserError(f"--OPTIMIZER_TYPE {name} is given; it needs second derivatives, choose another one")
    try:
        kind = _describe(key, get_optimizer_class(key))
    # Where no GPU is, timm asserts that there is one.
    except (ImportError, AssertionError) as error:
        raise UserError(f"--OPTIMIZER_TYPE {name}: {error}; install it or choose another one") from error
    momentum = {"momentum": TIMM_MOMENTUM} if kind.defaults.get("momentum") == 0 else {}
    return replace(kind, defaults={**kind.defaults, **momentum})


def check_optimizer(name: str | None, given: Mapping[str, float | None]) -> None:
    """Refuse an unknown optimiser, or a setting that it does not have.

    Args:
        name: what is asked for; None is nothing.
        given: "momentum" and "weight_decay" as the flags have them, or None.

    Raises:
        UserError: as said.
    """
    if name is None:
        return
    kind = find_optimizer(name)
    for setting, value in given.items():
        has = setting in kind.defaults or (setting == "momentum" and "betas" in kind.defaults)
        if value and not has:
            raise UserError(f"--{setting.upper()} {value:g} is given; {name} has none: leave it out")


def _describe(key: str, build: Callable[..., Optimizer]) -> OptimizerKind:
    parameters = inspect.signature(build).parameters.values()
    return OptimizerKind(key, build, {parameter.name: parameter.default for parameter in parameters})


@functools.cache
def _torch_optimizers() -> dict[str, type[Optimizer]]:
    found = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    return {
        name: kind
        for name, kind in found.items()
        if issubclass(kind, Optimizer) and name not in (*UNUSABLE, *WITHOUT_TORCH)
    }
