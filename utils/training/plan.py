"""The plan of a run: everything that is decided and checked before anything is written."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from utils.data.augment_level import DEFAULT
from utils.data.band_choice import TrainedBands
from utils.data.class_weights import class_weights
from utils.data.dataset import SegmentationDataset
from utils.data.layout import DatasetInfo
from utils.data.loaders import TrainingSampler
from utils.data.samples import training_samples
from utils.devices import check_batch, describe
from utils.distributed import agree, count, rank
from utils.training import announce
from utils.training.announce import flags_given, say
from utils.training.distributed import join
from utils.training.keeping import kept_samples
from utils.training.parallel import synchronizes
from utils.training.precision import Precision, allow_tf32, choose_precision
from utils.training.recipe import Settings, choose_accumulation, choose_recipe, resolve
from utils.training.runs import new_run
from utils.training.setup import (
    check_names,
    check_same_data,
    check_training_step,
    crop_size,
    read_dataset,
    seed_everything,
)
from utils.training.start import start_weights
from utils.training.training_data import training_flip, training_level, training_set

BAND_FLAGS = {"BAND_INDEX": None, "EXTRA_IMAGES": None}
SCALING_FLAGS = {"NORMALIZATION": None, "SCALING": "standard"}

Build = Callable[[argparse.Namespace, int, int], nn.Module]


@dataclass
class Plan:
    """What a run is going to be, decided and checked; nothing of it is written yet.

    Attributes:
        options: flags of the run.
        family: name of the network family.
        folder: where everything of the run will stand.
        devices: the leading one first.
        data: the checked data set.
        crop: training crop (height, width) in pixels.
        train: the training samples, augmented.
        network: with its start loaded and its normalisation set.
        bands: what checkpoints say of the bands.
        weights: loss weight per class, or None.
        sampler: order of the training tiles.
        precision: what the network computes in.
        settings, decisions: of the optimisation, and each decision with its reason.
        total: iterations of the run.
    """

    options: argparse.Namespace
    family: str
    folder: Path
    devices: list[torch.device]
    data: DatasetInfo
    crop: tuple[int, int]
    train: SegmentationDataset
    network: nn.Module
    bands: dict
    weights: list[float] | None
    sampler: TrainingSampler
    precision: Precision
    settings: Settings
    decisions: list[tuple[str, object, str]]
    total: int


def make_plan(
    options: argparse.Namespace, checkpoint: dict | None, folder: Path | None, build: Build
) -> Plan:
    """Read and check everything that a run needs, the cheap things first."""
    devices = join(options)
    sharing = max(count(), len(devices))
    check_batch(options.BATCH_SIZE, sharing, "GPUs" if devices[0].type == "cuda" else "processes")
    precision, why_precision = choose_precision(options.AMP, devices[0])
    family = check_names(options)
    data = read_dataset(options)
    crop = crop_size(options, data)
    tiles = len(training_samples(data.splits["train"], crop))
    seed_everything(options.SEED, options.DETERMINISTIC)
    tf32 = allow_tf32(options)
    network = build(options, data.bands, data.classes.num_classes)
    together = synchronizes(devices[0], options.SYNC_BN)
    check_training_step(network, options.BATCH_SIZE // (1 if together else sharing), crop, options.FREEZE)
    backbone = network.blueprint["options"].get("backbone")
    if folder is None:
        folder = Path(agree(str(new_run(options.RUN_NAME, f"{family}_{backbone}" if backbone else family))))
    say(f"found: {data.found}", *data.notices, *training_level(options, data)[1])
    say("", *announce.labels_table(data), "")
    recipe = choose_recipe(options)
    accumulate, why_accumulate = choose_accumulation(options, recipe)
    batch = options.BATCH_SIZE * accumulate
    if tiles < batch:
        times = f" times {accumulate}" if accumulate > 1 else ""
        fewer = f"fewer than --BATCH_SIZE {options.BATCH_SIZE}{times}"
        say(f"{tiles} training tiles are {fewer}: they fill it repeatedly", "")
    bands, weights = _start(options, network, data, folder, checkpoint)
    sampler = TrainingSampler(tiles, batch, options.SEED, (rank(), count()), parts=accumulate)
    total = options.MAX_ITERS or options.EPOCHS * sampler.batches_per_epoch
    settings, decisions = resolve(options, recipe, total)
    kept, about_kept = kept_samples(options, data, devices[0].type, total / sampler.batches_per_epoch)
    train = training_set(options, data, crop, network.mean.tolist(), network.std.tolist(), kept)
    said = [
        ("precision", precision.name, why_precision),
        *([("tf32", *tf32)] if devices[0].type == "cuda" else []),
        about_kept,
        ("accumulate", f"{accumulate} x {options.BATCH_SIZE} images per step", why_accumulate),
        *decisions,
    ]
    known = (options, family, folder, devices, data, crop, train, network, bands, weights)
    return Plan(*known, sampler, precision, settings, said, total)


def _start(
    options: argparse.Namespace, network: nn.Module, data: DatasetInfo, folder: Path, checkpoint: dict | None
) -> tuple[dict, list[float] | None]:
    """Give a network its first or its latest weights; return what is known of bands, and class weights."""
    if checkpoint is not None:
        check_same_data(checkpoint, data)
        network.load_state_dict(checkpoint["state_dict"])  # with --EMA the average; see `restore`
        return checkpoint["bands"], checkpoint["training"]["class_weights"]
    weights = class_weights(data.label_counts["train"], options.CLASS_WEIGHTS, data.classes.names)
    return start_weights(options, network, data, folder), weights


def about_plan(plan: Plan, *, resumed: bool) -> list[tuple[str, object, str]]:
    """Return the decisions beside those of the recipe."""
    options, crop, blueprint = plan.options, plan.crop, plan.network.blueprint
    millions = sum(p.numel() for p in plan.network.parameters()) / 1e6
    augmentation, rare = plan.train.augmentation, options.RARE_CLASS_SAMPLING
    return [
        ("run", plan.folder, "resumed" if resumed else ""),
        ("device", *_hardware(plan)),
        ("network", f"{plan.family}, {millions:.2f} M parameters", ""),
        ("options", ", ".join(f"{k}={v}" for k, v in blueprint["options"].items()), ""),
        ("length", _length(options, plan.total, plan.sampler), ""),
        ("bands", TrainedBands.of_checkpoint(plan.bands).describe(), flags_given(options, BAND_FLAGS)),
        ("normalisation", plan.bands["scaling"], flags_given(options, SCALING_FLAGS)),
        ("crop", f"{crop[0]} x {crop[1]} pixels", "--CROP_SIZE" if options.CROP_SIZE else "from the tiles"),
        ("augment", augmentation.level.describe(), "" if options.AUGMENT == DEFAULT else "--AUGMENT"),
        ("flip", *training_flip(options, plan.data)),
        ("rare_classes", "not preferred" if rare is None else f"crops by temperature {rare:g}", ""),
        ("class_weights", options.CLASS_WEIGHTS, "default" if options.CLASS_WEIGHTS == "none" else "flag"),
    ]


def _hardware(plan: Plan) -> tuple[str, str]:
    """Return the devices in words, and how they share the work."""
    text, each = describe(plan.devices), plan.options.BATCH_SIZE // max(count(), len(plan.devices))
    if count() > 1:
        return describe(plan.devices, count()), f"{plan.options.PARALLEL}, {each} images each"
    return text, f"dp, {each} images each" if len(plan.devices) > 1 else ""


def _length(options: argparse.Namespace, total: int, sampler: TrainingSampler) -> str:
    per_epoch, batch = sampler.batches_per_epoch, sampler.batch_size
    if options.MAX_ITERS:
        return f"{total} iterations of {batch} crops ({total / per_epoch:.1f} epochs)"
    hint = "; real runs take 100 or more" if options.EPOCHS < 20 else ""
    return f"{options.EPOCHS} epoch(s) of {per_epoch} iterations of {batch} crops{hint}"
