"""Everything before the first iteration: what a run needs is built and checked here, nothing is written."""

import argparse
import copy
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nets import create_model
from nets.errors import UserError
from nets.importers.foreign import is_known, load_foreign
from nets.importers.weight_files import read_weight_file
from nets.layers.init import reinitialize
from nets.registry import find_model, parse_model_options
from utils.checkpoint import is_ours, load_matching
from utils.data.bands import rgb_bands
from utils.data.findings import Report, stop
from utils.data.labels import Classes
from utils.data.layout import DatasetInfo, reading_of, scan_dataset
from utils.data.statistics import BandStatistics
from utils.training.criterion import check_loss
from utils.training.freeze import freeze
from utils.training.optimizer_names import check_optimizer
from utils.training.recipe import DEFAULTS, choose_recipe

DEFAULT_CROP = 512


def seed_everything(seed: int, deterministic: str) -> None:
    """Seed all generators and choose deterministic algorithms: "on" (where they exist), "strict" or "off"."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = deterministic == "off"
    torch.backends.cudnn.deterministic = deterministic != "off"
    if deterministic != "off":
        # cuBLAS reads this when it is first used; without it its sums are not repeatable.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Filling memory that is about to be overwritten only helps to find defects, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(deterministic != "off", warn_only=deterministic != "strict")


def read_dataset(options: argparse.Namespace, report: Report = stop) -> DatasetInfo:
    """Scan and check the data set of the flags; `report` gets the mistakes of single files."""
    # One class against the rest is two classes, of which a pixel has one.
    alone = options.NUM_CLASS == 1 and options.TASK == "multiclass"
    num_classes = 2 if alone else options.NUM_CLASS
    return scan_dataset(
        options.DATASET_PATH,
        num_classes=num_classes,
        bands=options.BANDS,
        reading=reading_of(vars(options)),
        report=report,
    )


def crop_size(options: argparse.Namespace, data: DatasetInfo) -> tuple[int, int]:
    """Return the training crop (height, width) in pixels."""
    if options.CROP_SIZE is not None:
        return options.CROP_SIZE
    height, width = data.smallest_tile
    return min(DEFAULT_CROP, max(height, 32)), min(DEFAULT_CROP, max(width, 32))


def check_names(options: argparse.Namespace) -> str:
    """Return the family; refuse mistyped names and a loss that it cannot have before the data are read."""
    parse_model_options(options.MODEL_OPTIONS)
    family = find_model(options.MODEL_TYPE)[0]
    own = choose_recipe(options).entries.get("loss", DEFAULTS["loss"])
    check_loss(options.LOSS_TYPE or own, family, own, options.LABEL_SMOOTHING, options.TASK)
    settings = {"momentum": options.MOMENTUM, "weight_decay": options.WEIGHT_DECAY}
    check_optimizer(options.OPTIMIZER_TYPE, settings)
    return family


def build_network(options: argparse.Namespace, bands: int, num_classes: int) -> nn.Module:
    """Return the network of the flags, started by INIT_TYPE."""
    given = parse_model_options(options.MODEL_OPTIONS)
    flags = {"bands": "BANDS", "num_classes": "NUM_CLASS", "backbone": "BACKBONE_TYPE", "task": "TASK"}
    for key, flag in flags.items():
        if key in given:
            raise UserError(f"--MODEL_OPTIONS {key}=...: use --{flag} instead")
    if options.BACKBONE_TYPE is not None:
        given["backbone"] = options.BACKBONE_TYPE
    recipe = choose_recipe(options)
    network = create_model(
        options.MODEL_TYPE,
        bands=bands,
        num_classes=num_classes,
        task=options.TASK,
        **{**recipe.entries.get("model_options", {}), **given},
    )
    reinitialize(network, options.INIT_TYPE)
    return network


@dataclass(frozen=True)
class Start:
    """Where the weights of a run come from.

    Attributes:
        text: in words.
        left_out: one line per tensor that did not fit.
        has_normalization: the file brought band statistics for these bands.
    """

    text: str
    left_out: tuple[str, ...] = ()
    has_normalization: bool = False


def load_start(options: argparse.Namespace, network: nn.Module, band_names: Sequence[str]) -> Start:
    """Load PRETRAIN_MODEL and PRETRAIN_BACKBONE into the network and say what was loaded.

    Raises:
        UserError: a file that does not fit, or its band statistics were asked for and there are none.
    """
    start = _load_start(options, network, band_names)
    if options.NORMALIZATION == "checkpoint" and not start.has_normalization:
        raise UserError(
            "--NORMALIZATION checkpoint needs --PRETRAIN_MODEL with band statistics for these bands; use data"
        )
    return start


def _load_start(options: argparse.Namespace, network: nn.Module, band_names: Sequence[str]) -> Start:
    text = f"random weights ({options.INIT_TYPE})"
    source = options.PRETRAIN_BACKBONE
    if source.lower() != "none":
        from nets.backbones.pretrained import load_pretrained

        rgb = rgb_bands(network.bands, band_names) if network.bands >= 3 else (0, 1, 2)
        left_out = load_pretrained(network.backbone, source, stem_init=options.STEM_INIT, rgb_bands=rgb)
        text = f"backbone from {source}, the rest {text}"
        if network.bands > 3 and options.STEM_INIT == "rgb_mean":
            text += f"; red, green, blue are {', '.join(band_names[band] for band in rgb)}"
        if options.PRETRAIN_MODEL is None:
            return Start(text, tuple(left_out))
    if options.PRETRAIN_MODEL is None:
        return Start(text)
    content = read_weight_file(options.PRETRAIN_MODEL)
    if not is_ours(content) and is_known(content):
        content = {"state_dict": load_foreign(content, options.PRETRAIN_MODEL).state_dict()}
    state = content.get("state_dict", {})
    mean = state.get("mean") if isinstance(state, dict) else None
    fits = isinstance(mean, torch.Tensor) and mean.shape == network.mean.shape
    left_out = load_matching(
        network,
        content,
        options.PRETRAIN_MODEL,
        stem_init=options.STEM_INIT,
        rgb_bands=rgb_bands(network.bands, band_names) if network.bands >= 3 else (0, 1, 2),
    )
    return Start(f"whole network from {options.PRETRAIN_MODEL}", tuple(left_out), fits)


def choose_normalization(
    options: argparse.Namespace, network: nn.Module, statistics: BandStatistics, start: Start
) -> str:
    """Set the network's mean and std and return where they come from, "data" or "checkpoint"."""
    mean, scale = torch.tensor(statistics.center), torch.tensor(statistics.scale)
    # A network trained on 0..1 and data in 0..10000 must not meet under the old statistics.
    same_range = bool(
        ((network.mean - mean).abs() < 4 * network.std).all() and (network.std / scale).log().abs().max() < 2
    )
    if options.NORMALIZATION == "checkpoint" or (
        options.NORMALIZATION is None and start.has_normalization and same_range
    ):
        return "checkpoint"
    network.mean.copy_(mean)
    network.std.copy_(scale)
    return "data"


def check_training_step(
    network: nn.Module, batch_size: int, crop: tuple[int, int], frozen: str | None = None
) -> None:
    """Run one training step's forward pass without memory, to find sizes the network cannot be trained at.

    Args:
        network: the network.
        batch_size: images on one device.
        crop: their height and width in pixels.
        frozen: the flag FREEZE.

    Raises:
        UserError: batch norm would see a single value per channel, or nothing has a name in FREEZE.
    """
    shadow = copy.deepcopy(network).to("meta").train()
    for norm in freeze(shadow, frozen) if frozen else ():
        norm.eval()
    rules = (max(side, network.min_size) for side in crop)
    height, width = (math.ceil(side / network.size_divisor) * network.size_divisor for side in rules)
    try:
        shadow(torch.zeros(batch_size, network.bands, height, width, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"this network has a batch norm that sees one value per channel at {batch_size} image(s) of "
            f"{height}x{width} per device; use a larger --BATCH_SIZE (2 or more per device) or --CROP_SIZE, "
            "or --FREEZE batch_norm"
        ) from error


def check_same_data(checkpoint: dict, data: DatasetInfo) -> None:
    """Refuse to go on with a run on data of other bands or classes.

    Raises:
        UserError: the data are not those of the run.
    """
    if Classes.from_dict(checkpoint["classes"]) != data.classes:
        raise UserError(
            f"the classes of {data.root} are {', '.join(data.classes.names)}, "
            f"the run's are {', '.join(checkpoint['classes']['names'])}; "
            "restore the data, or fine-tune with --PRETRAIN_MODEL"
        )
    if len(checkpoint["bands"]["names"]) != data.bands:
        count = len(checkpoint["bands"]["names"])
        raise UserError(f"{data.root} has {data.bands} bands and the run {count}; restore the data")
    ours = data.sources.to_dict()
    # A run that began before bands could be chosen says nothing of them.
    for key, what in (("index", "takes the bands"), ("files", "has images and extra images with bands")):
        theirs = checkpoint["bands"].get(key, ours[key])
        if theirs != ours[key]:
            raise UserError(f"{data.root}: the run {what} {theirs}, now {ours[key]}; restore the data")
