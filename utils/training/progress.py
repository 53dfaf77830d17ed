"""How far a run has come, in iterations, epochs, and rounds: what lies between two validations."""

import argparse
import time
from dataclasses import dataclass, field

from utils.data.loaders import TrainingSampler
from utils.training.logger import TrainingLog
from utils.training.patience import without_progress


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        options: flags of the run.
        sampler: order of the training tiles.
        log: a row for each validation.
        total, per_round: iterations of the run and between two validations.
        iteration: iterations done.
        validated_at: iterations that were done at the latest validation.
        started: when the round at hand began.
    """

    options: argparse.Namespace
    sampler: TrainingSampler
    log: TrainingLog
    total: int
    per_round: int
    iteration: int = 0
    validated_at: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def unfinished(self) -> bool:
        """Whether a validation is still to come, after training or without, and there is patience for it."""
        return self.validated_at < self.total and not self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether the column of --PATIENCE has not become better for as many validations."""
        if self.options.PATIENCE is None:
            return False
        validations, column = self.options.PATIENCE
        return without_progress(self.log.rows, column) >= validations

    @property
    def round_end(self) -> int:
        """Iterations that are done when the round at hand is over."""
        return min((self.validated_at // self.per_round + 1) * self.per_round, self.total)

    @property
    def round_done(self) -> bool:
        """Whether only the validation of the round at hand is left."""
        return self.iteration == self.round_end > self.validated_at

    @property
    def iterations(self) -> int:
        """Iterations that are left in the round at hand."""
        return self.round_end - self.iteration

    @property
    def unit(self) -> str:
        """What the run counts, "epoch" or "iter"."""
        return "iter" if self.options.MAX_ITERS else "epoch"

    @property
    def mark(self) -> int:
        """Epochs or iterations done."""
        return self.iteration if self.options.MAX_ITERS else self.iteration // self.sampler.batches_per_epoch

    @property
    def title(self) -> str:
        """What stands before the progress bar."""
        if self.options.MAX_ITERS:
            return f"iterations {self.validated_at + 1}..{self.round_end} of {self.total}"
        per_epoch = self.sampler.batches_per_epoch
        first, last = self.validated_at // per_epoch + 1, self.round_end // per_epoch
        return f"epoch {last if first == last else f'{first}..{last}'}/{self.total // per_epoch}"

    @property
    def seconds(self) -> float:
        """Time that the round at hand has taken so far."""
        return time.monotonic() - self.started

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.started = time.monotonic() - value
