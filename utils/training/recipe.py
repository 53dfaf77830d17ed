"""From a family's RECIPE table and the flags to the settings of a run, with the reason of each.

A RECIPE has the entries of "plain" and of "paper". Where they depend on how the network is built,
"paper_where" lists pairs (conditions on the builder's options, entries that go before those of "paper"): a
backbone is named by the beginning of its name, another option by its value; of several pairs that apply, the
last one counts. Their "model_options" are added to those of "paper".
"""

import argparse
import inspect
from dataclasses import dataclass, fields

from nets.backbones.catalogue import find_backbone, is_backbone
from nets.registry import find_model, get_builder, get_recipe, parse_model_options, plain
from utils.training.optimizer_names import find_optimizer

# What a recipe leaves open; rate, momentum and weight decay are then those usual for the optimiser.
DEFAULTS = {
    "optimizer": "adam",
    "scheduler": "poly",
    "poly_power": 0.9,
    "min_lr": 0.0,
    "warmup_iters": 0,
    "warmup_factor": 1e-6,
    "loss": "ce",
    "label_smoothing": None,
    "aux_weight": 0.4,
    "extra_losses": {},
    "head_lr_factor": 1.0,
    "with_backbone": (),
    "no_decay": (),
    "step_ratio": 0.1,
    "step_at": (),
    "backbone_lr_factor": 1.0,
    "layer_decay": 1.0,
    "layer_unit": "block",
    "layer_count": 0,
    "clip_grad": 0.0,
    "frozen_norm": False,
}
# Said only where a recipe or a flag uses them.
RARE = (
    "step_at",
    "label_smoothing",
    "extra_losses",
    "with_backbone",
    "backbone_lr_factor",
    "layer_decay",
    "layer_unit",
    "layer_count",
    "clip_grad",
    "frozen_norm",
)
# Optimisers among which a recipe's learning rate, or its momentum, is carried over.
SAME_RATE = ("adam", "adamw")
SAME_MOMENTUM = ("adam", "adamw", "sgd")
# The flags that overrule an entry of the table.
FLAGS = {
    "optimizer": "OPTIMIZER_TYPE",
    "lr": "INIT_LR",
    "momentum": "MOMENTUM",
    "weight_decay": "WEIGHT_DECAY",
    "scheduler": "LR_SCHEDULER",
    "poly_power": "POLY_POWER",
    "min_lr": "MIN_LR",
    "warmup_iters": "WARMUP_ITERS",
    "loss": "LOSS_TYPE",
    "label_smoothing": "LABEL_SMOOTHING",
    "step_ratio": "STEP_RATIO",
    "head_lr_factor": "HEAD_LR_FACTOR",
    "backbone_lr_factor": "BACKBONE_LR_FACTOR",
    "layer_decay": "LAYER_DECAY",
    "clip_grad": "CLIP_GRAD",
}


@dataclass(frozen=True)
class Settings:
    """Everything about optimisation that a run needs; rates per iteration.

    Attributes:
        optimizer: name of an optimiser.
        lr: initial learning rate, on which the factors below act.
        momentum: SGD momentum or Adam's first beta; None where the optimiser has none.
        weight_decay: decay of all weights but those in `no_decay`.
        scheduler: "poly", "step", "cos", "exp", "onecycle" or "constant".
        poly_power: exponent of "poly".
        min_lr: floor of every group's learning rate.
        warmup_iters: iterations of linear warm-up.
        warmup_factor: first factor of the warm-up.
        step_ratio: factor per step of "step" and "exp".
        step_at: shares of the run at which "step" decays; empty is the scheduler's own period.
        loss: main loss, as `utils.loss_terms` reads it.
        label_smoothing: share of the truth that is spread over all classes; None is what the loss says.
        aux_weight: weight of auxiliary outputs, or one for each in their order.
        extra_losses: further outputs that only some networks have, key -> loss with its weight.
        head_lr_factor: learning rate outside the backbone, relative.
        with_backbone: beginnings of the names of what has the backbone's learning rate beside it.
        no_decay: parts of parameter names without weight decay; "norm" means every norm layer, "vector" every
            parameter of one dimension (norms, biases, scales).
        backbone_lr_factor: learning rate of the backbone, relative.
        layer_decay: factor per layer of the backbone, from the head towards the image; 1 is none.
        layer_unit: what a layer is, "block" or "stage" (see `nets.backbones.depth`).
        layer_count: layers that the decay counts below the head; 0 is as many as the backbone has.
        clip_grad: largest norm of the gradient of all parameters together; 0 is no limit.
        frozen_norm: the backbone's batch norms keep their weights and biases.
    """

    optimizer: str
    lr: float
    momentum: float | None
    weight_decay: float
    scheduler: str
    poly_power: float
    min_lr: float
    warmup_iters: int
    warmup_factor: float
    step_ratio: float
    step_at: tuple[float, ...]
    loss: str
    label_smoothing: float | None
    aux_weight: float | tuple[float, ...]
    extra_losses: dict[str, str]
    head_lr_factor: float
    with_backbone: tuple[str, ...]
    no_decay: tuple[str, ...]
    backbone_lr_factor: float
    layer_decay: float
    layer_unit: str
    layer_count: int
    clip_grad: float
    frozen_norm: bool


@dataclass(frozen=True)
class Recipe:
    """The entries of a family's RECIPE that apply to a network, and where each stands there."""

    entries: dict
    reasons: dict[str, str]


def choose_recipe(options: argparse.Namespace) -> Recipe:
    """Return what the flags RECIPE, MODEL_TYPE, BACKBONE_TYPE and MODEL_OPTIONS choose."""
    family, implied = find_model(options.MODEL_TYPE)
    table, title = get_recipe(family), f"{options.RECIPE} recipe"
    built = {name: p.default for name, p in inspect.signature(get_builder(family)).parameters.items()}
    built |= implied | parse_model_options(options.MODEL_OPTIONS)
    if options.BACKBONE_TYPE is not None:
        built["backbone"] = options.BACKBONE_TYPE
    entries = dict(table[options.RECIPE])
    reasons = dict.fromkeys(entries, title)
    for conditions, changes in table.get(f"{options.RECIPE}_where", ()):
        if all(_fits(name, built[name], wanted) for name, wanted in conditions.items()):
            merged = entries.get("model_options", {}) | changes.get("model_options", {})
            entries |= changes | {"model_options": merged}
            words = ", ".join(f"{name} {wanted}" for name, wanted in conditions.items())
            reasons |= dict.fromkeys(changes, f"{title} for {words}")
    return Recipe(entries, reasons)


def _fits(name: str, value: object, wanted: str) -> bool:
    """Return whether an option has the wanted value, or is a backbone whose name begins so."""
    if name == "backbone" and is_backbone(str(value)):
        return find_backbone(str(value)).startswith(wanted)
    return plain(str(value)) == plain(wanted)


def resolve(
    options: argparse.Namespace, recipe: Recipe, total: int
) -> tuple[Settings, list[tuple[str, object, str]]]:
    """Return the settings of a run and, for each, (name, value, where it comes from).

    Args:
        options: parsed flags; a flag that is given wins.
        recipe: what `choose_recipe` chose.
        total: iterations of the run.
    """
    chosen, reasons = {}, {}
    for name in (field.name for field in fields(Settings)):
        flag = getattr(options, FLAGS.get(name, ""), None)
        if name == "step_at" and (options.LR_STEP is not None or chosen["scheduler"] != "step"):
            chosen[name], reasons[name] = (), "default"
        elif flag is not None:
            chosen[name], reasons[name] = flag, f"--{FLAGS[name]}"
        elif name in ("lr", "weight_decay", "momentum"):
            chosen[name], reasons[name] = _rate(name, chosen["optimizer"], options, recipe)
        else:
            chosen[name], reasons[name] = _entry(name, options, recipe, total)
            if name == "warmup_iters" and chosen["scheduler"] == "onecycle":
                chosen[name], reasons[name] = 0, "onecycle rises by itself"
    told = [name for name in chosen if name not in RARE or reasons[name] != "default"]
    return Settings(**chosen), [(name, chosen[name], reasons[name]) for name in told]


def _entry(name: str, options: argparse.Namespace, recipe: Recipe, total: int) -> tuple[object, str]:
    """Return an entry of the recipe, or the default, and where it comes from."""
    if name == "warmup_iters" and "warmup_fraction" in recipe.entries:
        fraction = recipe.entries["warmup_fraction"]
        return int(fraction * total), f"{recipe.reasons['warmup_fraction']}: {fraction:.0%} of the run"
    if name not in recipe.entries:
        return DEFAULTS[name], "default"
    value, reason = recipe.entries[name], recipe.reasons[name]
    if name == "warmup_iters" and value >= total:
        reason += f"; longer than this run of {total}: give --WARMUP_ITERS"
    return _scaled(value, reason, options, recipe) if name == "min_lr" else (value, reason)


def _rate(name: str, optimizer: str, options: argparse.Namespace, recipe: Recipe) -> tuple[float | None, str]:
    """Return the learning rate, weight decay or momentum that suits the optimiser."""
    own = recipe.entries.get("optimizer", DEFAULTS["optimizer"])
    same = {"lr": SAME_RATE, "momentum": SAME_MOMENTUM}.get(name, ())
    related = optimizer == own or {optimizer, own} <= {*same}
    if name not in recipe.entries or not related:
        return find_optimizer(optimizer).usual(name), f"usual for {optimizer}"
    value, reason = recipe.entries[name], recipe.reasons[name]
    return _scaled(value, reason, options, recipe) if name == "lr" else (value, reason)


def _scaled(rate: float, reason: str, options: argparse.Namespace, recipe: Recipe) -> tuple[float, str]:
    """Return a learning rate for this run's batch, in proportion to the recipe's."""
    batch = options.BATCH_SIZE * choose_accumulation(options, recipe)[0]
    official = recipe.entries.get("batch_size", batch)
    if not rate or official == batch:
        return rate, reason
    if options.SCALE_LR == "off":
        return rate, f"{reason}: for batch {official}, not scaled to {batch} (--SCALE_LR off)"
    return rate * batch / official, f"{reason}: {rate:g} at batch {official}, scaled to {batch}"


def choose_accumulation(options: argparse.Namespace, recipe: Recipe) -> tuple[int, str]:
    """Return how many batches make a step, and why: with a recipe's batch its learning rate is right."""
    official = recipe.entries.get("batch_size", options.BATCH_SIZE)
    if options.ACCUMULATE is not None:
        return options.ACCUMULATE, "--ACCUMULATE"
    if options.SCALE_LR != "auto" or official % options.BATCH_SIZE or official == options.BATCH_SIZE:
        return 1, "default"
    return official // options.BATCH_SIZE, f"{recipe.reasons['batch_size']}: batch {official}"
