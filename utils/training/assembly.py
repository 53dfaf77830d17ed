"""From a plan to a session: the network on its devices, with loaders, loss and optimiser around it."""

import math

import torch

from utils.data.dataset import SegmentationDataset, default_workers, evaluation_loader, training_loader
from utils.data.samples import evaluation_samples
from utils.training.criterion import build_criterion
from utils.training.distributed import count, rank, restore_random_states
from utils.training.logger import TrainingLog
from utils.training.optimizers import build_optimizer
from utils.training.parallel import distribute, even, load_optimizer, synchronize_batch_norm
from utils.training.plan import Plan
from utils.training.schedulers import build_scheduler
from utils.training.session import Session

# With MAX_ITERS, validation takes place after whole epochs, but not more often than this in a run.
MOST_ROUNDS = 50


def assemble(plan: Plan) -> Session:
    """Put the network on its devices and build loaders, loss and optimiser around it."""
    options, device, data = plan.options, plan.devices[0], plan.data
    on_gpu = device.type == "cuda"
    workers = default_workers(device.type, count()) if options.NUM_WORKERS is None else options.NUM_WORKERS
    val = SegmentationDataset(evaluation_samples(data.splits["val"]), data.classes)
    per_epoch = plan.sampler.batches_per_epoch
    epochs_per_round = math.ceil(plan.total / MOST_ROUNDS / per_epoch) if options.MAX_ITERS else 1
    # LR_STEP counts what the run counts; the schedulers count iterations.
    unit = 1 if options.MAX_ITERS else per_epoch
    step = options.LR_STEP * unit if options.LR_STEP else math.ceil(plan.total / 3)
    network, _ = synchronize_batch_norm(plan.network, device, options.SYNC_BN)
    criterion = build_criterion(plan.settings, plan.weights)
    model = distribute(network, plan.devices, options.PARALLEL, criterion)
    optimizer = build_optimizer(network, plan.settings)
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
        per_round=epochs_per_round * per_epoch,
        precision=plan.precision,
        clip_grad=plan.settings.clip_grad,
    )


def restore(session: Session, state: dict) -> None:
    """Put the training state of a checkpoint into a session."""
    session.iteration, session.best = state["iteration"], state["best"]
    session.log.rows = list(state["rows"])
    load_optimizer(session.optimizer, state["optimizer"])
    session.scheduler.load_state_dict(state["scheduler"])
    # A run that did not scale, or began before there was a choice, has no state of it.
    if state.get("scaler"):
        session.precision.scaler.load_state_dict(state["scaler"])
    # A run that is made longer goes on at the new curve's rate.
    for group, base, factor in zip(
        session.optimizer.param_groups, session.scheduler.base_lrs, session.scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(session.iteration)
    restore_random_states(session.device, state["random"])
    session.restart_batches()
