"""A training run: what it is made of, how far it has come, and what is written when an epoch has ended."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from nets.errors import UserError
from utils.checkpoint import write_checkpoint
from utils.data.layout import DatasetInfo
from utils.data.samples import Sample
from utils.devices import unwrap
from utils.distributed import count, leads
from utils.evaluation.metrics import ConfusionMatrix, Metrics
from utils.evaluation.plots import draw_confusion
from utils.training.announce import say
from utils.training.distributed import random_states
from utils.training.engine import READ_EVERY, RunningLoss, Trainer, endless
from utils.training.interrupt import StopSignals, stopped
from utils.training.patience import FALLING
from utils.training.progress import Progress
from utils.training.report import write_report
from utils.training.runs import remove_old
from utils.training.sample_sheet import SampleSheet
from utils.training.state import network_checkpoint, training_state
from utils.training.trackers import Trackers

SECONDS_BETWEEN_PICTURES = 30


@dataclass(kw_only=True)
class Session(Trainer, Progress):
    """The state of a run, which is validated after every round: an epoch, or what MAX_ITERS makes of it.

    It is the `Trainer` of the run, whose batches go on from the iterations that are done, and its `Progress`.

    Attributes:
        family: name of the network family.
        folder: where everything of the run stands.
        data: the checked data set.
        crop: training crop (height, width) in pixels.
        bands: what a checkpoint says of the bands.
        best: best mIoU so far, negative before the first validation.
        best_confusion: confusion matrix of the best epoch.
        best_scores: [name, mIoU] of each image with labels at the best epoch, of this process's share.
        metrics: scores of the latest validation.
        losses: of the round at hand.
        random_before_validation: random states at the end of a round's training, until it is validated.
        signals: what came from outside.
        trackers: get each row of the log too.
    """

    family: str
    folder: Path
    data: DatasetInfo
    crop: tuple[int, int]
    bands: dict
    train_loader: DataLoader
    val_loader: DataLoader
    best: float = -1.0
    best_confusion: ConfusionMatrix | None = None
    best_scores: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    losses: RunningLoss | None = None
    random_before_validation: dict | None = None
    signals: StopSignals = field(default_factory=StopSignals)
    trackers: Trackers | None = None
    batches: Iterator[dict] = field(init=False)

    def __post_init__(self):
        self.restart_batches()
        self.started = self.drawn = time.monotonic()
        self.best_is_drawn = True
        self.seen: list[str] = []
        samples = samples_of(self.val_loader)
        self.sheet = SampleSheet(self.folder / "samples", samples, self.data.classes, self.data.band_names)

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
    def columns(self) -> tuple[str, ...]:
        """Names of the scores in the log."""
        classes = self.data.classes
        scores = ConfusionMatrix(classes.num_classes, classes.task).compute().row(classes.names)
        return (*FALLING, *scores)

    @property
    def val_progress(self) -> partial:
        """The progress bar of a validation."""
        return partial(tqdm, desc="validation", unit="batch", dynamic_ncols=True, leave=False)

    def begin(self) -> RunningLoss:
        """Return the losses of the round at hand, which may have begun before the run was resumed."""
        fresh = super().begin()
        self.losses = self.losses or fresh
        self.tell_progress()
        return self.losses

    def tell_progress(self) -> None:
        """Tell the network how much of the training is done."""
        at_progress = getattr(unwrap(self.model), "at_progress", None)
        if at_progress is not None:
            at_progress(self.iteration / self.total)

    def not_finite(self, lr: float) -> UserError:
        """Return the mistake of a run whose losses are no numbers any more, and say what is kept."""
        files = {sample.name: sample.image for sample in self.train_loader.dataset.samples}
        self.names = [str(files.get(name, name)) for name in self.names]
        last = self.folder / "last.pth"
        kept = f" ({last} holds the run as it was before)" if last.is_file() else ""
        return UserError(f"{super().not_finite(lr)}{kept}")

    def step_done(self, losses: RunningLoss) -> None:
        """Count an iteration, save where --SAVE_ITERS says so, and leave where a signal came.

        Raises:
            Stopped: a signal came; the run is saved.
        """
        self.iteration += 1
        self.tell_progress()
        if self.round_done:
            self.random_before_validation = random_states(self.device)
        elif self.options.SAVE_ITERS and self.iteration % self.options.SAVE_ITERS == 0:
            self.save()
        # To ask the other processes takes time.
        if count() == 1 or self.iteration % READ_EVERY == 0:
            self.leave_if_told()

    def watch(self, batch: dict, predictions: Tensor, masks: Tensor) -> None:
        """Look at a batch of a validation: for its pictures, and to leave in the middle where a signal came.

        Several processes end the validation first.

        Raises:
            Stopped: a signal came; the run is saved as it was before this validation.
        """
        self.seen += batch["name"]
        self.sheet.take(batch, predictions, masks)
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
        """Write last.pth; called by all processes, because each may hold a share of the state.

        While steps are being left out the earlier file is kept: these weights may be why.
        """
        if self.finite.in_a_row:
            return
        checkpoint = {**network_checkpoint(self), "training": training_state(self)}
        if leads():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(self.folder / "last.pth", checkpoint)

    def restore_best(self, matrix: Tensor | None) -> None:
        """Take over the confusion matrix of the best epoch; it may not have been drawn yet."""
        if matrix is not None:
            self.best_confusion, self.best_is_drawn = ConfusionMatrix.of(matrix), False

    def finish_epoch(
        self,
        train: dict[str, float],
        val: dict[str, float],
        confusion: ConfusionMatrix,
        scores: Sequence[Metrics] = (),
    ) -> None:
        """Write the log row, the checkpoints and the pictures of the epoch (or round) that has ended.

        Args:
            train: training losses "total" and "main" and the last learning rate "lr".
            val: validation losses "total" and "main".
            confusion: of the validation split.
            scores: of each image that `watch` has seen.
        """
        metrics, seconds, before = confusion.compute(), self.seconds, self.validated_at
        self.close_round()
        self.log.add(self._row(train, val, metrics, seconds), write=leads())
        say(
            f"{self.unit} {self.mark}: train_loss {train['main']:.4f}  val_loss {val['main']:.4f}  "
            f"mIoU {metrics.mIoU:.4f}  Acc {metrics.Acc:.4f}  ({seconds:.0f} s)",
            *self._left_out(),
        )
        better, self.metrics = metrics.mIoU > self.best, metrics.to_dict()
        if better:
            self.best, self.best_confusion, self.best_is_drawn = metrics.mIoU, confusion, False
            pairs = zip(self.seen, scores, strict=False)
            self.best_scores = [[name, score.mIoU] for name, score in pairs if sum(score.pixels)]
        self.seen.clear()
        # By all processes: each may hold a share of the state.
        checkpoint, training = network_checkpoint(self), training_state(self)
        if not leads():
            return
        if self.trackers:
            self.trackers.add(self.log.rows[-1])
        if better:
            write_checkpoint(self.folder / "best.pth", checkpoint)
        self.sheet.write(f"{self.unit}_{self.mark:05d}")
        self._draw()
        if self._keeps(before):
            name = f"{self.family}-{self.unit}{self.mark}-loss{train['main']:.4f}-val_loss{val['main']:.4f}"
            write_checkpoint(self.folder / f"{name}.pth", checkpoint)
            remove_old(self.folder, self.family, self.options.KEEP)
        if not self.finite.in_a_row or not self.unfinished:
            write_checkpoint(self.folder / "last.pth", {**checkpoint, "training": training})

    def _row(self, train: dict, val: dict, metrics: Metrics, seconds: float) -> dict[str, int | float | str]:
        """Return the log row of the epoch that has ended."""
        return {
            self.unit: self.mark,
            "lr": train["lr"],
            "train_loss": train["main"],
            "val_loss": "" if math.isnan(val["main"]) else val["main"],
            "train_loss_total": train["total"],
            "seconds": round(seconds, 1),
            **metrics.row(self.data.classes.names),
        }

    def close_round(self) -> None:
        """Count the round that has ended as done; alone, without validation and files."""
        self.seconds, self.losses, self.random_before_validation = 0.0, None, None
        self.validated_at = self.iteration

    def _left_out(self) -> list[str]:
        """Return a line that says how many steps were left out in the run, none where all were taken."""
        count = self.finite.left_out
        return [f"{count} step(s) left out so far: loss or gradient not finite"] if count else []

    def close(self) -> None:
        """Write the report, and finish what is told elsewhere."""
        if leads() and (self.folder / "best.pth").is_file():
            write_report(self)
        if self.trackers:
            self.trackers.close()

    def _keeps(self, before: int) -> bool:
        """Return whether the weights are kept, when the previous validation was at iteration `before`."""
        unit = self.per_round if self.options.MAX_ITERS else self.sampler.batches_per_epoch
        every = unit * self.options.MODEL_SAVE_EPOCHS
        return self.iteration // every > before // every or not self.unfinished

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


def samples_of(loader: DataLoader) -> list[Sample]:
    """Return the samples of an evaluation loader that this process gets."""
    samples = loader.dataset.samples
    return [samples[index] for batch in loader.batch_sampler for index in batch]
