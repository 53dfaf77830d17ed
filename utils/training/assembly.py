"""From a plan to a session: the network on its devices, with loaders, loss and optimiser around it."""

import argparse
import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.data.dataset import SegmentationDataset
from utils.data.loaders import default_workers, evaluation_loader, training_loader
from utils.data.samples import evaluation_samples
from utils.distributed import count, rank
from utils.training.accumulate import is_mean_over_pixels
from utils.training.criterion import build_criterion
from utils.training.finite import FiniteSteps
from utils.training.freeze import freeze
from utils.training.logger import TrainingLog
from utils.training.optimizers import build_optimizer, freeze_norms
from utils.training.parallel import distribute, even, shard, synchronize_batch_norm
from utils.training.plan import Plan
from utils.training.recompute import recompute_backbone
from utils.training.schedulers import build_scheduler
from utils.training.session import Session
from utils.training.validation import check_windows

# With MAX_ITERS but no VAL_INTERVAL, validation takes place after whole epochs, and at most this often.
MOST_ROUNDS = 50


def assemble(plan: Plan) -> Session:
    """Put the network on its devices and build loaders, loss and optimiser around it."""
    options, device, data = plan.options, plan.devices[0], plan.data
    on_gpu = device.type == "cuda"
    workers = default_workers(device.type, count()) if options.NUM_WORKERS is None else options.NUM_WORKERS
    val = SegmentationDataset(evaluation_samples(data.splits["val"]), data.classes)
    per_epoch = plan.sampler.batches_per_epoch
    check_windows(options.VAL_WINDOW, options.PARALLEL)
    # LR_STEP counts what the run counts; the schedulers count iterations.
    unit = 1 if options.MAX_ITERS else per_epoch
    step = options.LR_STEP * unit if options.LR_STEP else math.ceil(plan.total / 3)
    criterion = build_criterion(plan.settings, plan.weights)
    network, model, more = prepare(plan, criterion)
    optimizer = build_optimizer(network, plan.settings, device)
    if rank():  # dropout and its like must differ between the shares of a batch
        torch.manual_seed(options.SEED + 7919 * rank())
    if on_gpu:
        torch.cuda.empty_cache()
    return Session(
        options=options,
        family=plan.family,
        folder=plan.folder,
        data=data,
        crop=plan.crop,
        bands=plan.bands,
        device=device,
        model=model,
        criterion=criterion.to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, plan.settings, plan.total, step),
        sampler=plan.sampler,
        train_loader=training_loader(plan.train, plan.sampler, workers, pin_memory=on_gpu),
        val_loader=even(
            evaluation_loader(
                val, options.BATCH_SIZE // count(), workers, pin_memory=on_gpu, share=(rank(), count())
            ),
            options.PARALLEL,
        ),
        log=TrainingLog(plan.folder, plan.family),
        total=plan.total,
        per_round=iterations_per_round(options, plan.total, per_epoch),
        finite=FiniteSteps(options.NAN_PATIENCE),
        precision=plan.precision,
        clip_grad=plan.settings.clip_grad,
        accumulate=plan.sampler.parts,
        weighted=is_mean_over_pixels(plan.settings),
        **more,
    )


def iterations_per_round(options: argparse.Namespace, total: int, per_epoch: int) -> int:
    """Return the iterations between two validations."""
    unit = 1 if options.MAX_ITERS else per_epoch
    if options.VAL_INTERVAL is not None:
        return options.VAL_INTERVAL * unit
    return per_epoch * (math.ceil(total / MOST_ROUNDS / per_epoch) if options.MAX_ITERS else 1)


def prepare(plan: Plan, criterion: nn.Module) -> tuple[nn.Module, nn.Module, dict]:
    """Return the network of a plan, the same on its devices, and what of it a `Trainer` has to know."""
    options, device = plan.options, plan.devices[0]
    network = synchronize_batch_norm(plan.network, device, options.SYNC_BN)
    frozen = freeze(network, options.FREEZE) if options.FREEZE else ()
    freeze_norms(network, plan.settings)
    memory_format = torch.channels_last if options.CHANNELS_LAST else torch.contiguous_format
    network.to(memory_format=memory_format)
    ema = None if options.EMA is None else moving_average(network, plan.devices, options)
    if options.GRAD_CHECKPOINT:
        recompute_backbone(network)
    if options.COMPILE:
        network.compile()
    model = distribute(network, plan.devices, options.PARALLEL, criterion)
    return network, model, {"frozen": frozen, "ema": ema, "memory_format": memory_format}


def moving_average(
    network: nn.Module, devices: list[torch.device], options: argparse.Namespace
) -> AveragedModel:
    """Return the moving average of weights and running statistics, equal to the network at the first step."""
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.EMA), use_buffers=True)
    average.to(devices[0])
    if count() > 1 and options.PARALLEL == "fsdp":
        shard(average.module, devices[0])
    return average
