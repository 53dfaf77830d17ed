"""Arithmetic that half precision would spoil."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which autocast leaves the precision of `x` alone."""
    kind = x.device.type  # the meta device, where sizes are checked, has no autocast
    running = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if running else contextlib.nullcontext()


@contextlib.contextmanager
def full_precision(x: Tensor) -> Iterator[Tensor]:
    """Give `x` in float32 at least, and switch autocast off inside."""
    with without_autocast(x):
        yield x.to(torch.promote_types(x.dtype, torch.float32))
