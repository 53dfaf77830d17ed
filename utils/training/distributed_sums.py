"""Sums over a batch that several processes share."""

import torch
from torch import Tensor
from torch import distributed as dist


def reduce_sum(local: Tensor) -> Tensor:
    """Return the sum over all processes of what each has summed over its part of the batch.

    Every sum over a batch that a loss makes goes through here, numerators and denominators alike: then each
    process knows the loss of the whole batch, and two processes with half the batch each have the gradients
    of one. All processes must come here equally often, so never behind a condition on the data.

    Where no gradients are recorded, as in a validation, and in a single process, it returns its argument.
    """
    if not (dist.is_available() and dist.is_initialized()) or not torch.is_grad_enabled():
        return local
    return _Sum.apply(local)


class _Sum(torch.autograd.Function):
    """The sum over processes, for a loss that is the same in all of them."""

    @staticmethod
    def forward(context, local: Tensor) -> Tensor:
        """Return the sum."""
        total = local.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        """Return what is left right after DistributedDataParallel and FSDP have averaged over processes."""
        return gradient * dist.get_world_size()
