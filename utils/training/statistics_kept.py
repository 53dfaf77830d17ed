"""What is computed a second time leaves no second trace in the running statistics of batch norms."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from utils.training.optimizers import BATCH_NORM


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let the batch norms inside normalise as they do, but add nothing to their running statistics."""
    norms = [norm for norm in module.modules() if isinstance(norm, BATCH_NORM) and norm.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
