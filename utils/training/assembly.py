"""From a plan to a session: the network on its devices, with loaders, loss and optimiser around it."""

import math

import torch

from utils.data.dataset import SegmentationDataset, default_workers, evaluation_loader, training_loader
from utils.data.samples import evaluation_samples
from utils.devices import place
from utils.training.criterion import build_criterion
from utils.training.logger import TrainingLog
from utils.training.optimizers import build_optimizer
from utils.training.plan import Plan
from utils.training.schedulers import build_scheduler
from utils.training.session import Session

# With MAX_ITERS, validation takes place after whole epochs, but not more often than this in a run.
MOST_ROUNDS = 50


def assemble(plan: Plan) -> Session:
    """Put the network on its devices and build loaders, loss and optimiser around it."""
    options, device, data = plan.options, plan.devices[0], plan.data
    on_gpu = device.type == "cuda"
    workers = default_workers(device.type) if options.NUM_WORKERS is None else options.NUM_WORKERS
    val = SegmentationDataset(evaluation_samples(data.splits["val"]), data.classes)
    per_epoch = plan.sampler.batches_per_epoch
    epochs_per_round = math.ceil(plan.total / MOST_ROUNDS / per_epoch) if options.MAX_ITERS else 1
    # LR_STEP counts what the run counts; the schedulers count iterations.
    unit = 1 if options.MAX_ITERS else per_epoch
    step = options.LR_STEP * unit if options.LR_STEP else math.ceil(plan.total / 3)
    model = place(plan.network, plan.devices)
    optimizer = build_optimizer(plan.network, plan.settings)
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
        criterion=build_criterion(plan.settings, plan.weights).to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, plan.settings, plan.total, step),
        sampler=plan.sampler,
        train_loader=training_loader(plan.train, plan.sampler, workers, pin_memory=on_gpu),
        val_loader=evaluation_loader(val, options.BATCH_SIZE, workers, pin_memory=on_gpu),
        log=TrainingLog(plan.folder, plan.family),
        total=plan.total,
        per_round=epochs_per_round * per_epoch,
        precision=plan.precision,
        clip_grad=plan.settings.clip_grad,
    )


def restore(session: Session, state: dict) -> None:
    """Put the training state of a checkpoint into a session."""
    session.iteration, session.best = state["iteration"], state["best"]
    session.log.rows = list(state["rows"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scheduler.load_state_dict(state["scheduler"])
    # A run that did not scale, or began before there was a choice, has no state of it.
    if state.get("scaler"):
        session.precision.scaler.load_state_dict(state["scaler"])
    # A run that is made longer goes on at the new curve's rate.
    for group, base, factor in zip(
        session.optimizer.param_groups, session.scheduler.base_lrs, session.scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(session.iteration)
    torch.set_rng_state(state["random"]["cpu"])
    if session.device.type == "cuda" and state["random"]["cuda"]:
        torch.cuda.set_rng_state_all(state["random"]["cuda"])
    session.restart_batches()
