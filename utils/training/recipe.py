"""From a family's RECIPE table and the flags to the settings of a run, with the reason of each."""

import argparse
from dataclasses import dataclass, fields

# What a recipe leaves open. Adam's usual rate is too small for SGD, so that rate depends on the optimiser.
DEFAULTS = {
    "optimizer": "adam",
    "momentum": 0.9,
    "scheduler": "poly",
    "poly_power": 0.9,
    "min_lr": 0.0,
    "warmup_iters": 0,
    "warmup_factor": 1e-6,
    "loss": "ce",
    "aux_weight": 0.4,
    "head_lr_factor": 1.0,
    "no_decay": (),
    "step_ratio": 0.1,
}
OPTIMIZER_DEFAULTS = {
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "adamw": {"lr": 1e-3, "weight_decay": 0.01},
    "sgd": {"lr": 0.01, "weight_decay": 1e-4},
}
# The flags that overrule an entry of the table.
FLAGS = {
    "optimizer": "OPTIMIZER_TYPE",
    "lr": "INIT_LR",
    "momentum": "MOMENTUM",
    "weight_decay": "WEIGHT_DECAY",
    "scheduler": "LR_SCHEDULER",
    "poly_power": "POLY_POWER",
    "warmup_iters": "WARMUP_ITERS",
    "loss": "LOSS_TYPE",
    "step_ratio": "STEP_RATIO",
}


@dataclass(frozen=True)
class Settings:
    """Everything about optimisation that a run needs; rates per iteration.

    Attributes:
        optimizer: "adam", "adamw" or "sgd".
        lr: initial learning rate of the backbone; the head's is `head_lr_factor` times that.
        momentum: SGD momentum or Adam's first beta.
        weight_decay: decay of all weights but those in `no_decay`.
        scheduler: "poly", "step", "cos" or "exp".
        poly_power: exponent of "poly".
        min_lr: floor of the learning rate.
        warmup_iters: iterations of linear warm-up.
        warmup_factor: first factor of the warm-up.
        step_ratio: factor per step of "step" and "exp".
        loss: main loss.
        aux_weight: weight of auxiliary outputs.
        head_lr_factor: learning rate outside the backbone, relative.
        no_decay: parts of parameter names without weight decay; "norm" means every norm layer.
    """

    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    scheduler: str
    poly_power: float
    min_lr: float
    warmup_iters: int
    warmup_factor: float
    step_ratio: float
    loss: str
    aux_weight: float
    head_lr_factor: float
    no_decay: tuple[str, ...]


def resolve(
    options: argparse.Namespace, recipes: dict[str, dict], total: int
) -> tuple[Settings, list[tuple[str, object, str]]]:
    """Return the settings of a run and, for each, (name, value, where it comes from).

    Args:
        options: parsed flags; a flag that is given wins.
        recipes: the family's RECIPE table.
        total: iterations of the run.
    """
    recipe = recipes[options.RECIPE]
    chosen, reasons = {}, {}
    for name in (field.name for field in fields(Settings)):
        flag = getattr(options, FLAGS.get(name, ""), None)
        if flag is not None and (name != "step_ratio" or "STEP_RATIO" in options.given):
            chosen[name], reasons[name] = flag, f"--{FLAGS[name]}"
        elif name in ("lr", "weight_decay"):
            chosen[name], reasons[name] = _rate(name, chosen["optimizer"], options, recipe)
        elif name == "warmup_iters" and "warmup_fraction" in recipe:
            chosen[name] = int(recipe["warmup_fraction"] * total)
            reasons[name] = f"{options.RECIPE} recipe: {recipe['warmup_fraction']:.0%} of the run"
        elif name in recipe:
            chosen[name], reasons[name] = recipe[name], f"{options.RECIPE} recipe"
        else:
            chosen[name], reasons[name] = DEFAULTS[name], "default"
    return Settings(**chosen), [(name, value, reasons[name]) for name, value in chosen.items()]


def _rate(name: str, optimizer: str, options: argparse.Namespace, recipe: dict) -> tuple[float, str]:
    """Return the learning rate or weight decay that suits the optimiser."""
    own = recipe.get("optimizer", DEFAULTS["optimizer"])
    related = optimizer == own or (name == "lr" and "sgd" not in (optimizer, own))
    if name not in recipe or not related:
        return OPTIMIZER_DEFAULTS[optimizer][name], f"usual for {optimizer}"
    value, reason = recipe[name], f"{options.RECIPE} recipe"
    official = recipe.get("batch_size")
    if name == "lr" and official and official != options.BATCH_SIZE:
        value *= options.BATCH_SIZE / official
        reason += f": {recipe['lr']:g} at batch {official}, scaled to {options.BATCH_SIZE}"
    return value, reason
