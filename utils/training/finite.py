"""Steps whose loss or gradient is not a number are left out; too many in a row end the run."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from utils.checkpoint import whole
from utils.distributed import total
from utils.training.optimizers import BATCH_NORM


class FiniteSteps:
    """Judges each step before the optimiser takes it.

    Args:
        patience: steps that may be left out one after the other, less one.

    Attributes:
        in_a_row: steps left out since the latest one that was taken.
        left_out: steps left out in all.
    """

    def __init__(self, patience: int = 10):
        self.patience, self.in_a_row, self.left_out = patience, 0, 0
        self._statistics: list[tuple[Tensor, Tensor]] = []

    def remember(self, model: nn.Module) -> None:
        """Keep the running statistics of batch norms, which the forward pass of a bad step would spoil."""
        self._statistics = [
            (buffer, buffer.clone())
            for module in model.modules()
            if isinstance(module, BATCH_NORM) and module.training
            for buffer in module.buffers()
        ]

    def accept(self, loss: Tensor, norm: Tensor, *, scaled: bool = False) -> bool:
        """Return whether a step may be taken; if not, undo what it did to running statistics.

        All processes get the same answer.

        Args:
            loss: of the step.
            norm: of its gradient.
            scaled: the gradient is that of a scaled loss, whose overflow only means that the scale is too
                large: such a step is left out, but not counted.
        """
        flags = total((~torch.isfinite(torch.stack([loss.float(), norm.float()]))).float())
        bad_loss, bad_norm = flags.bool().tolist()  # waits for the device
        if not bad_loss and not bad_norm:
            self.in_a_row = 0
            return True
        for buffer, before in self._statistics:
            buffer.copy_(before)
        if bad_loss or not scaled:
            self.in_a_row += 1
            self.left_out += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether too many steps were left out one after the other."""
        return self.in_a_row >= self.patience


def gradient_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Return the norm of the gradient, then scale it to at most `limit`; with 0, its largest value."""
    if limit:
        return whole(nn.utils.clip_grad_norm_(parameters, limit))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole(nn.utils.get_total_norm(gradients, torch.inf))
