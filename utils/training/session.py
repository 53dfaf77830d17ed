"""A training run: what it is made of, how far it has come, and what is written when an epoch has ended."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.checkpoint import write_checkpoint
from utils.data.dataset import TrainingSampler
from utils.data.layout import DatasetInfo
from utils.devices import unwrap
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.plots import draw_confusion
from utils.training.announce import say
from utils.training.distributed import count, leads, random_states
from utils.training.engine import READ_EVERY, RunningLoss, Trainer, endless
from utils.training.interrupt import StopSignals, stopped
from utils.training.logger import TrainingLog
from utils.training.runs import remove_old
from utils.training.state import network_checkpoint, training_state

SECONDS_BETWEEN_PICTURES = 30


@dataclass(kw_only=True)
class Session(Trainer):
    """The state of a run, which is validated after every round: an epoch, or what MAX_ITERS makes of it.

    It is the `Trainer` of the run, whose batches go on from the iterations that are done.

    Attributes:
        options: flags of the run.
        family: name of the network family.
        folder: where everything of the run stands.
        data: the checked data set.
        crop: training crop (height, width) in pixels.
        bands: what a checkpoint says of the bands.
        total, per_round: iterations of the run and between two validations.
        iteration: iterations done.
        validated_at: iterations that were done at the latest validation.
        best: best mIoU so far, negative before the first validation.
        best_confusion: confusion matrix of the best epoch.
        metrics: scores of the latest validation.
        losses: of the round at hand.
        random_before_validation: random states at the end of a round's training, until it is validated.
        signals: what came from outside.
    """

    options: argparse.Namespace
    family: str
    folder: Path
    data: DatasetInfo
    crop: tuple[int, int]
    bands: dict
    sampler: TrainingSampler
    train_loader: DataLoader
    val_loader: DataLoader
    log: TrainingLog
    total: int
    per_round: int
    iteration: int = 0
    validated_at: int = 0
    best: float = -1.0
    best_confusion: ConfusionMatrix | None = None
    metrics: dict = field(default_factory=dict)
    losses: RunningLoss | None = None
    random_before_validation: dict | None = None
    signals: StopSignals = field(default_factory=StopSignals)
    batches: Iterator[dict] = field(init=False)

    def __post_init__(self):
        self.restart_batches()
        self.started = self.drawn = time.monotonic()
        self.best_is_drawn = True

    def restart_batches(self) -> None:
        """Let the batches go on from the iterations that are done."""
        self.batches = endless(self.train_loader, self.sampler, self.iteration)

    @property
    def validated(self) -> nn.Module:
        """The network that is validated and saved: the average of the weights where there is one."""
        if self.ema:
            return self.ema.module
        return unwrap(self.model) if count() > 1 else self.model

    @property
    def unfinished(self) -> bool:
        """Whether a validation is still to come, after training or without."""
        return self.validated_at < self.total

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
        return f"epoch {self.round_end // per_epoch}/{self.total // per_epoch}"

    @property
    def seconds(self) -> float:
        """Time that the round at hand has taken so far."""
        return time.monotonic() - self.started

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.started = time.monotonic() - value

    @property
    def val_progress(self) -> partial:
        """The progress bar of a validation."""
        return partial(tqdm, desc="validation", unit="batch", dynamic_ncols=True, leave=False)

    def begin(self) -> RunningLoss:
        """Return the losses of the round at hand, which may have begun before the run was resumed."""
        fresh = super().begin()
        self.losses = self.losses or fresh
        return self.losses

    def step_done(self, losses: RunningLoss) -> None:
        """Count an iteration, save where --SAVE_ITERS says so, and leave where a signal came.

        Raises:
            Stopped: a signal came; the run is saved.
        """
        self.iteration += 1
        if self.round_done:
            self.random_before_validation = random_states(self.device)
        elif self.options.SAVE_ITERS and self.iteration % self.options.SAVE_ITERS == 0:
            self.save()
        # To ask the other processes takes time.
        if count() == 1 or self.iteration % READ_EVERY == 0:
            self.leave_if_told()

    def watch(self, batch: dict, predictions: Tensor, masks: Tensor) -> None:
        """Leave in the middle of a validation where a signal came; several processes end it first.

        Raises:
            Stopped: a signal came; the run is saved as it was before this validation.
        """
        if count() == 1:
            self.leave_if_told()

    def leave_if_told(self) -> None:
        """Save and leave where a signal came.

        Raises:
            Stopped: one came.
        """
        if number := self.signals.agreed():
            self.save()
            raise stopped(number, f"after iteration {self.iteration} of {self.total}", self.folder.name)

    def save(self) -> None:
        """Write last.pth; called by all processes, because each may hold a share of the state."""
        checkpoint = {**network_checkpoint(self), "training": training_state(self)}
        if leads():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(self.folder / "last.pth", checkpoint)

    def restore_best(self, matrix: Tensor | None) -> None:
        """Take over the confusion matrix of the best epoch; it may not have been drawn yet."""
        if matrix is not None:
            self.best_confusion = ConfusionMatrix(len(matrix))
            self.best_confusion.matrix, self.best_is_drawn = matrix, False

    def finish_epoch(
        self, train: dict[str, float], val: dict[str, float], confusion: ConfusionMatrix
    ) -> None:
        """Write the log row, the checkpoints and the pictures of the epoch (or round) that has ended.

        Args:
            train: training losses "total" and "main" and the last learning rate "lr".
            val: validation losses "total" and "main".
            confusion: of the validation split.
        """
        metrics, seconds, before = confusion.compute(), self.seconds, self.validated_at
        self.close_round()
        row = {
            self.unit: self.mark,
            "lr": train["lr"],
            "train_loss": train["main"],
            "val_loss": val["main"],
            "train_loss_total": train["total"],
            "seconds": round(seconds, 1),
            **metrics.row(self.data.classes.names),
        }
        self.log.add(row, write=leads())
        say(
            f"{self.unit} {self.mark}: train_loss {train['main']:.4f}  val_loss {val['main']:.4f}  "
            f"mIoU {metrics.mIoU:.4f}  Acc {metrics.Acc:.4f}  ({seconds:.0f} s)"
        )
        better, self.metrics = metrics.mIoU > self.best, metrics.to_dict()
        if better:
            self.best, self.best_confusion, self.best_is_drawn = metrics.mIoU, confusion, False
        # By all processes: each may hold a share of the state.
        checkpoint, training = network_checkpoint(self), training_state(self)
        if not leads():
            return
        if better:
            write_checkpoint(self.folder / "best.pth", checkpoint)
        self._draw()
        if self._keeps(before):
            name = f"{self.family}-{self.unit}{self.mark}-loss{train['main']:.4f}-val_loss{val['main']:.4f}"
            write_checkpoint(self.folder / f"{name}.pth", checkpoint)
            remove_old(self.folder, self.family, self.options.KEEP)
        write_checkpoint(self.folder / "last.pth", {**checkpoint, "training": training})

    def close_round(self) -> None:
        """Count the round that has ended as done; alone, without validation and files."""
        self.seconds, self.losses, self.random_before_validation = 0.0, None, None
        self.validated_at = self.iteration

    def _keeps(self, before: int) -> bool:
        """Return whether the weights are kept, when the previous validation was at iteration `before`."""
        unit = self.per_round if self.options.MAX_ITERS else self.sampler.batches_per_epoch
        every = unit * self.options.MODEL_SAVE_EPOCHS
        return self.iteration // every > before // every or not self.unfinished

    def farewell(self) -> list[str]:
        """Return lines that say where the results are and what to do with them."""
        best = self.folder / "best.pth"
        lines = [
            "",
            f"best mIoU {self.best:.4f}",
            f"log         {self.log.path}",
            f"curves      {self.log.curves}",
            f"checkpoint  {best}",
            f"evaluate:   python evaluate.py --WEIGHTS {best} --DATASET_PATH {self.options.DATASET_PATH}",
            f"predict:    python predict_small.py --WEIGHTS {best} --INPUT your_images/"
            + (" --EXTRA_IMAGES their_folder/" if self.options.EXTRA_IMAGES else ""),
        ]
        if not self.options.MAX_ITERS and self.options.EPOCHS < 20:
            lines.append(
                f"hint: {self.options.EPOCHS} epoch(s) show that it works; real runs take 100 or more"
            )
        return lines

    def _draw(self) -> None:
        """Draw curves and confusion matrix, but not so often that short epochs wait for pictures."""
        now = time.monotonic()
        if self.unfinished and now - self.drawn < SECONDS_BETWEEN_PICTURES:
            return
        self.drawn = now
        self.log.draw()
        if not self.best_is_drawn:
            path = self.folder / "confusion.png"
            draw_confusion(self.best_confusion.matrix, self.data.classes.names, path)
            self.best_is_drawn = True
