"""Opening a run: from flags to a `Session`. Mistakes show before anything is written."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nets.registry import get_recipe
from utils.data.dataset import (
    SegmentationDataset,
    TrainingSampler,
    default_workers,
    evaluation_loader,
    training_loader,
)
from utils.data.layout import DatasetInfo
from utils.data.statistics import BandStatistics, cached_statistics, class_weights, measure_bands
from utils.data.transforms import Augmentation
from utils.devices import check_batch, choose_devices, describe, place
from utils.evaluation.report import replacing
from utils.options import plain_options
from utils.training.announce import bands_table, classes_table, decisions_table, say
from utils.training.logger import TrainingLog
from utils.training.losses import Criterion
from utils.training.optimizers import build_optimizer
from utils.training.recipe import Settings, resolve
from utils.training.resume import resume
from utils.training.runs import new_run
from utils.training.schedulers import build_scheduler
from utils.training.session import Session
from utils.training.setup import (
    build_network,
    check_names,
    check_same_data,
    check_training_step,
    choose_normalization,
    crop_size,
    load_start,
    read_dataset,
    seed_everything,
)

# With MAX_ITERS, validation takes place after whole epochs, but not more often than this in a run.
MOST_ROUNDS = 50


def open_session(
    options: argparse.Namespace,
    build: Callable[[argparse.Namespace, int, int], nn.Module] = build_network,
) -> Session:
    """Build a run from its flags, or from the checkpoint that it goes on from.

    Args:
        options: parsed flags.
        build: (options, bands, num_classes) -> network; benchmarks train the peers' networks this way.

    Raises:
        UserError: whatever is wrong with flags, data or files.
    """
    options, checkpoint, folder = resume(options)
    devices = choose_devices(options)
    check_batch(options.BATCH_SIZE, devices)
    family = check_names(options)
    data = read_dataset(options)
    crop = crop_size(options, data)
    seed_everything(options.SEED, options.DETERMINISTIC)
    network = build(options, data.bands, data.classes.num_classes)
    check_training_step(network, options.BATCH_SIZE // len(devices), crop)
    backbone = network.blueprint["options"].get("backbone")
    folder = folder or new_run(options.RUN_NAME, f"{family}_{backbone}" if backbone else family)
    tiles = len(data.splits["train"])
    if tiles < options.BATCH_SIZE:
        say(
            f"{tiles} training tiles are fewer than --BATCH_SIZE {options.BATCH_SIZE}: they fill it repeatedly"
        )
    say(*data.notices, "")
    if checkpoint is None:
        weights = class_weights(data.label_counts["train"], options.CLASS_WEIGHTS)
        bands = start_weights(options, network, data, folder)
    else:
        check_same_data(checkpoint, data)
        network.load_state_dict(checkpoint["state_dict"])
        bands, weights = checkpoint["bands"], checkpoint["training"]["class_weights"]

    sampler = TrainingSampler(tiles, options.BATCH_SIZE, options.SEED)
    total = options.MAX_ITERS or options.EPOCHS * sampler.batches_per_epoch
    settings, decisions = resolve(options, get_recipe(family), total)
    flip = options.FLIP or ("d4" if data.has_crs else "h")
    about = [
        ("run", folder, "resumed" if checkpoint else ""),
        ("device", describe(devices), ""),
        ("network", f"{family}, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", ""),
        ("options", _in_words(network.blueprint["options"]), ""),
        ("length", _length(options, total, sampler.batches_per_epoch), ""),
        ("normalisation", bands["scaling"], "--NORMALIZATION" if options.NORMALIZATION else ""),
        ("crop", f"{crop[0]} x {crop[1]} pixels", "--CROP_SIZE" if options.CROP_SIZE else "from the tiles"),
        ("flip", flip, "--FLIP" if options.FLIP else "images carry a CRS" if data.has_crs else "no CRS"),
        ("class_weights", options.CLASS_WEIGHTS, "--CLASS_WEIGHTS"),
        *decisions,
    ]
    say(*classes_table(data, weights), "", *decisions_table(about), "")
    session = _assemble(
        options, family, folder, data, crop, bands, devices, network, settings, weights, sampler, flip, total
    )
    if checkpoint is not None:
        restore(session, checkpoint["training"])
    write_options(folder, options, about)
    return session


def start_weights(options: argparse.Namespace, network: nn.Module, data: DatasetInfo, folder: Path) -> dict:
    """Load the start of a new run, set its normalisation and return what checkpoints say of the bands."""
    start = load_start(options, network, data.band_names)
    train = data.splits["train"]
    statistics = cached_statistics(folder / "statistics.json", train, lambda: measure_bands(train))
    scaling = choose_normalization(options, network, statistics, start)
    say(*bands_table(data, statistics), "", f"start: {start.text}", *_listed(start.left_out))
    return describe_bands(data, statistics, scaling)


def describe_bands(data: DatasetInfo, statistics: BandStatistics, scaling: str) -> dict:
    """Return what a checkpoint says of the bands, in plain values."""
    return {
        "names": list(data.band_names),
        "dtype": data.dtype,
        "scaling": f"mean and standard deviation ({scaling})",
        "minimum": list(statistics.minimum),
        "maximum": list(statistics.maximum),
    }


def _listed(left_out: tuple[str, ...], most: int = 20) -> list[str]:
    lines = [f"  not loaded: {line}" for line in left_out[:most]]
    if len(left_out) > most:
        lines.append(f"  ... and {len(left_out) - most} more")
    return lines


def _length(options: argparse.Namespace, total: int, per_epoch: int) -> str:
    if options.MAX_ITERS:
        return f"{total} iterations of {options.BATCH_SIZE} crops ({total / per_epoch:.1f} epochs)"
    hint = "; real runs take 100 or more" if options.EPOCHS < 20 else ""
    return f"{options.EPOCHS} epoch(s) of {per_epoch} iterations of {options.BATCH_SIZE} crops{hint}"


def _in_words(options: dict) -> str:
    return ", ".join(f"{k}={v}" for k, v in options.items() if k not in ("bands", "num_classes"))


def _assemble(
    options: argparse.Namespace,
    family: str,
    folder: Path,
    data: DatasetInfo,
    crop: tuple[int, int],
    bands: dict,
    devices: list[torch.device],
    network: nn.Module,
    settings: Settings,
    weights: list[float] | None,
    sampler: TrainingSampler,
    flip: str,
    total: int,
) -> Session:
    device = devices[0]
    workers = default_workers(device.type) if options.NUM_WORKERS is None else options.NUM_WORKERS
    augmentation = Augmentation(crop_size=crop, flip=flip, band_std=tuple(network.std.tolist()))
    train = SegmentationDataset(data.splits["train"], data.classes, augmentation, options.SEED)
    val = SegmentationDataset(data.splits["val"], data.classes)
    per_epoch = sampler.batches_per_epoch
    per_round = (
        max(1, math.ceil(total / MOST_ROUNDS / per_epoch)) * per_epoch if options.MAX_ITERS else per_epoch
    )
    # LR_STEP counts what the run counts; the schedulers count iterations.
    unit = 1 if options.MAX_ITERS else per_epoch
    step = options.LR_STEP * unit if options.LR_STEP else max(1, math.ceil(total / 3))
    model = place(network, devices)
    optimizer = build_optimizer(network, settings)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    pin = device.type == "cuda"
    return Session(
        options=options,
        family=family,
        folder=folder,
        data=data,
        crop=crop,
        bands=bands,
        device=device,
        model=model,
        criterion=Criterion(settings.loss, weights, settings.aux_weight).to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, settings, total, step),
        sampler=sampler,
        train_loader=training_loader(train, sampler, workers, pin_memory=pin),
        val_loader=evaluation_loader(val, options.BATCH_SIZE, workers, pin_memory=pin),
        log=TrainingLog(folder, family),
        total=total,
        per_round=per_round,
    )


def restore(session: Session, state: dict) -> None:
    """Put the training state of a checkpoint into a session."""
    session.iteration, session.best = state["iteration"], state["best"]
    session.log.rows = list(state["rows"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scheduler.load_state_dict(state["scheduler"])
    # A run that is made longer goes on at the new curve's rate.
    for group, base, factor in zip(
        session.optimizer.param_groups, session.scheduler.base_lrs, session.scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(session.iteration)
    torch.set_rng_state(state["random"]["cpu"])
    if session.device.type == "cuda" and state["random"]["cuda"]:
        torch.cuda.set_rng_state_all(state["random"]["cuda"])
    session.restart_batches()


def write_options(folder: Path, options: argparse.Namespace, about: list[tuple[str, object, str]]) -> None:
    """Write options.json: the flags as parsed and every decision with its reason."""
    folder.mkdir(parents=True, exist_ok=True)
    decisions = {name: {"value": str(value), "reason": reason} for name, value, reason in about}
    text = json.dumps({"flags": plain_options(options), "decisions": decisions}, indent=1, ensure_ascii=False)
    with replacing(folder / "options.json") as part:
        part.write_text(text, encoding="utf-8")
