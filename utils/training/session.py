"""A training run between two epochs: what it is made of, and what is written when an epoch has ended."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.checkpoint import network_state, versions, whole, write_checkpoint
from utils.data.dataset import TrainingSampler
from utils.data.layout import DatasetInfo
from utils.devices import unwrap
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.plots import draw_confusion
from utils.options import plain_options
from utils.training.announce import say
from utils.training.distributed import count, leads, random_states
from utils.training.engine import Trainer, endless
from utils.training.logger import TrainingLog
from utils.training.runs import remove_old

SECONDS_BETWEEN_PICTURES = 30


@dataclass(kw_only=True)
class Session(Trainer):
    """The state of a run between two epochs ("rounds" of several epochs where MAX_ITERS is given).

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
        best: best mIoU so far, negative before the first validation.
        best_confusion: confusion matrix of the best epoch, until it is drawn.
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
    best: float = -1.0
    best_confusion: ConfusionMatrix | None = None
    batches: Iterator[dict] = field(init=False)

    def __post_init__(self):
        self.restart_batches()
        self.started = self.drawn = time.monotonic()

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
        """Whether iterations are left."""
        return self.iteration < self.total

    @property
    def round_number(self) -> int:
        """Number of the epoch (or round) at hand, from 1."""
        return self.iteration // self.per_round + 1

    @property
    def iterations(self) -> int:
        """Iterations of the epoch (or round) at hand."""
        return min(self.per_round - self.iteration % self.per_round, self.total - self.iteration)

    @property
    def title(self) -> str:
        """What stands before the progress bar."""
        if self.options.MAX_ITERS:
            return f"iterations {self.iteration + 1}..{self.iteration + self.iterations} of {self.total}"
        return f"epoch {self.round_number}/{self.total // self.per_round}"

    @property
    def val_progress(self) -> partial:
        """The progress bar of a validation."""
        return partial(tqdm, desc="validation", unit="batch", dynamic_ncols=True, leave=False)

    def finish_epoch(
        self, train: dict[str, float], val: dict[str, float], confusion: ConfusionMatrix
    ) -> None:
        """Write the log row, the checkpoints and the pictures of the epoch that has ended.

        Args:
            train: training losses "total" and "main" and the last learning rate "lr".
            val: validation losses "total" and "main".
            confusion: of the validation split.
        """
        number = self.round_number
        self.iteration += self.iterations
        mark = self.iteration if self.options.MAX_ITERS else number
        metrics = confusion.compute()
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        row = {
            "iter" if self.options.MAX_ITERS else "epoch": mark,
            "lr": train["lr"],
            "train_loss": train["main"],
            "val_loss": val["main"],
            "train_loss_total": train["total"],
            "seconds": round(seconds, 1),
            **metrics.row(self.data.classes.names),
        }
        if leads():
            self.log.add(row)
        say(
            f"{self._unit} {mark}: train_loss {train['main']:.4f}  val_loss {val['main']:.4f}  "
            f"mIoU {metrics.mIoU:.4f}  Acc {metrics.Acc:.4f}  ({seconds:.0f} s)"
        )
        better = metrics.mIoU > self.best
        self.best = max(self.best, metrics.mIoU)
        # By all processes: each may hold a share of the state.
        checkpoint, training = self._checkpoint(mark, metrics.to_dict()), self._training_state()
        if not leads():
            return
        if better:
            write_checkpoint(self.folder / "best.pth", checkpoint)
            self.best_confusion = confusion
        self._draw()
        if number % self.options.MODEL_SAVE_EPOCHS == 0 or not self.unfinished:
            name = f"{self.family}-{self._unit}{mark}-loss{train['main']:.4f}-val_loss{val['main']:.4f}.pth"
            write_checkpoint(self.folder / name, checkpoint)
            remove_old(self.folder, self.family, self.options.KEEP)
        write_checkpoint(self.folder / "last.pth", {**checkpoint, "training": training})

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
        if self.best_confusion is not None:
            path = self.folder / "confusion.png"
            draw_confusion(self.best_confusion.matrix, self.data.classes.names, path)
            self.best_confusion = None

    @property
    def _unit(self) -> str:
        return "iter" if self.options.MAX_ITERS else "epoch"

    def _checkpoint(self, mark: int, metrics: dict) -> dict:
        network = unwrap(self.validated)
        return {
            "blueprint": network.blueprint,
            "state_dict": network_state(network),
            "task": network.task,
            "classes": self.data.classes.to_dict(),
            "bands": self.bands,
            "crop_size": list(self.crop),
            "metrics": metrics,
            self._unit: mark,
            "epoch": self.iteration // self.sampler.batches_per_epoch,
            "options": plain_options(self.options),
            "versions": versions(),
        }

    def _training_state(self) -> dict:
        return {
            "iteration": self.iteration,
            "iterations_per_epoch": self.sampler.batches_per_epoch,
            "finished": not self.unfinished,
            "best": self.best,
            "optimizer": whole(self.optimizer.state_dict()),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            # The state_dict beside it is the average's.
            "ema": None
            if self.ema is None
            else {"network": network_state(self.model), "count": self.ema.n_averaged.item()},
            "random": random_states(self.device),
            "class_weights": None
            if self.criterion.class_weights is None
            else self.criterion.class_weights.tolist(),
            "rows": self.log.rows,
        }
