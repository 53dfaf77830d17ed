"""What the checkpoints of a run hold, and how a run goes on from one."""

from typing import TYPE_CHECKING

from torch import nn

from utils.checkpoint import network_state, versions, whole
from utils.devices import unwrap
from utils.options import plain_options
from utils.training.distributed import (
    others_buffers,
    random_states,
    restore_buffers,
    restore_random_states,
)
from utils.training.engine import RunningLoss
from utils.training.parallel import load_network, load_optimizer

if TYPE_CHECKING:
    from utils.training.session import Session


def network_checkpoint(session: "Session") -> dict:
    """Return what a checkpoint says of the network as it is; called by all processes."""
    network = unwrap(session.validated)
    return {
        "blueprint": network.blueprint,
        "state_dict": network_state(network),
        "task": network.task,
        "classes": session.data.classes.to_dict(),
        "bands": session.bands,
        "crop_size": list(session.crop),
        "metrics": session.metrics,
        session.unit: session.mark,
        "epoch": session.iteration // session.sampler.batches_per_epoch,
        "options": plain_options(session.options),
        "versions": versions(),
    }


def training_state(session: "Session") -> dict:
    """Return everything else that going on needs, to the bit; called by all processes."""
    weights, losses = session.criterion.class_weights, session.losses
    return {
        "iteration": session.iteration,
        "validated_at": session.validated_at,
        "iterations_per_epoch": session.sampler.batches_per_epoch,
        "finished": not session.unfinished,
        "best": session.best,
        "best_matrix": None if session.best_confusion is None else session.best_confusion.matrix.cpu(),
        "best_scores": session.best_scores,
        "optimizer": whole(session.optimizer.state_dict()),
        "scheduler": session.scheduler.state_dict(),
        "scaler": session.precision.scaler.state_dict(),
        # The state_dict beside it is the average's.
        "ema": None
        if session.ema is None
        else {"network": network_state(session.model), "count": session.ema.n_averaged.item()},
        # A validation may draw random numbers; cut short, it has not taken place.
        "buffers": others_buffers(_networks(session)),
        "random": session.random_before_validation or random_states(session.device),
        "class_weights": None if weights is None else weights.tolist(),
        "rows": session.log.rows,
        "losses": None if losses is None else losses.state_dict(),
        "seconds": session.seconds,
        "left_out": session.finite.left_out,
    }


def restore(session: "Session", checkpoint: dict) -> None:
    """Put the training state of a checkpoint into a session."""
    state = checkpoint["training"]
    session.iteration, session.best = state["iteration"], state["best"]
    # Runs of earlier versions were saved after validations only.
    session.validated_at = state.get("validated_at", session.iteration)
    session.metrics = checkpoint["metrics"]
    session.log.rows = list(state["rows"])
    session.restore_best(state.get("best_matrix"))
    session.best_scores = state.get("best_scores", [])
    if state.get("losses"):
        session.losses = RunningLoss.from_state_dict(state["losses"], session.device)
    session.seconds = state.get("seconds", 0.0)
    session.finite.left_out = state.get("left_out", 0)
    load_optimizer(session.optimizer, state["optimizer"])
    if session.ema:
        # The average was copied from the network, which was loaded with it.
        session.ema.n_averaged.fill_(state["ema"]["count"])
        load_network(unwrap(session.model), state["ema"]["network"])
    restore_buffers(_networks(session), state.get("buffers", []))
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
    if session.round_done:
        session.random_before_validation = state["random"]
    session.restart_batches()


def _networks(session: "Session") -> list[nn.Module]:
    """Return the network that is trained, and the average of it where there is one."""
    return [unwrap(session.model), *([session.ema.module] if session.ema else [])]
