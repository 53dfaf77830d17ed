"""The training loop: one visible sequence."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from nets.errors import UserError
from utils.data.loaders import TrainingSampler, to_device
from utils.devices import unwrap
from utils.training.accumulate import Parts
from utils.training.finite import FiniteSteps, gradient_norm
from utils.training.precision import Precision

# Reading a loss waits for the device, so it is not read at every iteration.
READ_EVERY = 10


@dataclass
class RunningLoss:
    """Mean losses over the steps taken so far, summed on the device, and the latest learning rate."""

    total: Tensor
    main: Tensor
    iterations: int = 0
    lr: float = math.nan

    @classmethod
    def start(cls, device: torch.device) -> "RunningLoss":
        """Return an empty one."""
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))

    def add(self, total: Tensor, main: Tensor) -> None:
        """Add the losses of a part of a step's batch."""
        self.total += total.detach()
        self.main += main.detach()

    def add_step(self, step: "RunningLoss") -> None:
        """Add the losses of a whole step."""
        self.add(step.total, step.main)
        self.iterations += 1

    def means(self) -> dict[str, float]:
        """Return {"total", "main", "lr"}; losses of no step are NaN."""
        steps = self.iterations or math.nan
        return {"total": self.total.item() / steps, "main": self.main.item() / steps, "lr": self.lr}

    def state_dict(self) -> dict:
        """Return plain values and tensors."""
        sums = {"total": self.total.cpu().clone(), "main": self.main.cpu().clone()}
        return {**sums, "iterations": self.iterations, "lr": self.lr}

    @classmethod
    def from_state_dict(cls, state: dict, device: torch.device) -> "RunningLoss":
        """Return what `state_dict` has described."""
        return cls(**{**state, "total": state["total"].to(device), "main": state["main"].to(device)})


def endless(loader: DataLoader, sampler: TrainingSampler, iteration: int) -> Iterator[dict]:
    """Yield batches, or their parts, from `iteration` of the run on, epoch after epoch."""
    epoch, first_batch = divmod(iteration, sampler.batches_per_epoch)
    while True:
        sampler.set_epoch(epoch, first_batch)
        yield from loader
        epoch, first_batch = epoch + 1, 0


@dataclass(kw_only=True)
class Trainer:
    """What a step of training needs, all of it on one device or wrapped for several.

    Attributes:
        model: network on its devices.
        batches: endless batches of the training data.
        criterion: (outputs, masks) -> (loss to minimise, main loss alone).
        optimizer, scheduler: stepped once per iteration.
        device: the leading device.
        precision: what the network computes in.
        clip_grad: largest norm of the gradient of all parameters together; 0 is no limit.
        accumulate: batches per step.
        weighted: the loss is a mean over weighted pixels (see `Parts`).
        frozen: batch norms that keep their statistics.
        ema: moving average of the weights.
        memory_format: of the images.
        finite: says which steps are taken.
        names: of the images of the latest step.
    """

    model: nn.Module
    batches: Iterator[dict]
    criterion: Callable[[dict, Tensor], tuple[Tensor, Tensor]]
    optimizer: Optimizer
    scheduler: LRScheduler
    device: torch.device
    precision: Precision = field(default_factory=Precision)
    clip_grad: float = 0.0
    accumulate: int = 1
    weighted: bool = False
    frozen: tuple[nn.Module, ...] = ()
    ema: AveragedModel | None = None
    memory_format: torch.memory_format = torch.contiguous_format
    finite: FiniteSteps = field(default_factory=FiniteSteps)
    names: list[str] = field(default_factory=list)

    def begin(self) -> RunningLoss:
        """Put the network into training mode, but for frozen batch norms, and return the losses so far."""
        self.model.train()
        for norm in self.frozen:
            norm.eval()
        return RunningLoss.start(self.device)

    def not_finite(self, lr: float) -> UserError:
        """Return the mistake of a run whose losses are no numbers any more."""
        return UserError(
            f"loss or gradient was not finite in {self.finite.in_a_row} steps in a row (learning rate "
            f"{lr:.2e}); use a smaller --INIT_LR or a longer --WARMUP_ITERS, or look at the latest images: "
            f"{', '.join(self.names)}"
        )

    def step_done(self, losses: RunningLoss) -> None:
        """Take note of an iteration; a `Session` counts it, and saves where that is due."""

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Return the next images (B, C, H, W) and masks (B, H, W) or (B, K, H, W) on the device."""
        batch = next(self.batches)
        self.names = [*self.names, *batch.get("name", ())][-self.accumulate * len(batch["image"]) :]
        images, masks = to_device(batch, self.device)
        return images.contiguous(memory_format=self.memory_format), masks


def train_one_epoch(trainer: Trainer, iterations: int, title: str = "") -> dict[str, float]:
    """Train for `iterations` more and return the epoch's mean losses "total" and "main" and the last "lr".

    Raises:
        UserError: loss or gradient was not a number in too many steps in a row.
    """
    model, optimizer, scheduler = trainer.model, trainer.optimizer, trainer.scheduler
    scaler = trainer.precision.scaler
    losses = trainer.begin()
    done = losses.iterations
    waited, started = 0.0, time.perf_counter()
    with tqdm(initial=done, total=done + iterations, desc=title, unit="batch", dynamic_ncols=True) as bar:
        for step in range(iterations):
            optimizer.zero_grad(set_to_none=True)
            asked = time.perf_counter()
            batches = [trainer.next_batch() for _ in range(trainer.accumulate)]
            waited += time.perf_counter() - asked
            trainer.finite.remember(model)
            step_losses = RunningLoss.start(trainer.device)
            parts = Parts(model, trainer.criterion, batches, trainer.precision, weighted=trainer.weighted)
            for images, masks in parts:
                with trainer.precision.autocast():
                    outputs = model(images)
                total, main = parts.criterion(outputs, masks)
                scaler.scale(total).backward()
                step_losses.add(total, main)
            scaler.unscale_(optimizer)
            norm = gradient_norm(model.parameters(), trainer.clip_grad)
            if trainer.finite.accept(step_losses.total, norm, scaled=scaler.is_enabled()):
                scaler.step(optimizer)
                losses.add_step(step_losses)
                if trainer.ema:
                    trainer.ema.update_parameters(unwrap(model))
            scaler.update()
            losses.lr = scheduler.get_last_lr()[0]
            scheduler.step()
            if trainer.finite.exhausted:
                raise trainer.not_finite(losses.lr)
            if step % READ_EVERY == 0 or step == iterations - 1:
                mean = losses.means()["main"]
                wait = waited / (time.perf_counter() - started)  # share of the time: the reading is too slow
                shown = {"loss": f"{mean:.4f}", "lr": f"{losses.lr:.2e}", "wait": f"{wait:.0%}"}
                bar.set_postfix(shown, refresh=False)
            bar.update()
            trainer.step_done(losses)
    return losses.means()
