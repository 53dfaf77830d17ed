"""Activations that are computed again in the backward pass instead of being kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, https://arxiv.org/abs/1604.06174.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nets.errors import UserError
from utils.training.statistics_kept import statistics_kept

SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_backbone(network: nn.Module) -> int:
    """Let every block of the backbone keep its input only and return their number.

    Raises:
        UserError: a backbone without blocks.
    """
    blocks = find_blocks(network.backbone)
    if not blocks:
        raise UserError(
            "--GRAD_CHECKPOINT is given; this backbone has no blocks to compute again: leave it out, or use "
            "--ACCUMULATE with a smaller --BATCH_SIZE"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)
    return len(blocks)


def find_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the smallest members of sequences that have parts with parts of their own no more.

    These are residual blocks, transformer layers and their like, but not a convolution.
    """
    found = []
    for child in module.children():
        inner = find_blocks(child)
        is_block = (
            isinstance(module, SEQUENCES) and not isinstance(child, SEQUENCES) and any(child.children())
        )
        found += inner or ([child] if is_block else [])
    return found


@torch.compiler.disable(recursive=False)  # torch.compile cannot trace the contexts; it compiles the blocks
def _recomputed(block: nn.Module, forward: Callable, *inputs: object, **more: object) -> object:
    """Call the forward of a block, in training without keeping what happens inside."""
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs, **more)
    again = partial(_contexts, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=again, **more)


def _contexts(block: nn.Module) -> tuple:
    """Return the contexts of the first and of the second computation."""
    return nullcontext(), statistics_kept(block)
