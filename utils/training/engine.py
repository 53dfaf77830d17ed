"""The training loop: one visible sequence."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from nets.errors import UserError
from utils.data.dataset import TrainingSampler, to_device
from utils.training.precision import Precision

# Reading a loss waits for the device, so it is not read at every iteration.
READ_EVERY = 10


@dataclass
class RunningLoss:
    """Mean losses over the iterations so far, summed on the device."""

    total: Tensor
    main: Tensor
    iterations: int = 0

    @classmethod
    def start(cls, device: torch.device) -> "RunningLoss":
        """Return an empty one."""
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))

    def add(self, total: Tensor, main: Tensor) -> None:
        """Add one iteration's losses."""
        self.total += total.detach()
        self.main += main.detach()
        self.iterations += 1

    def means(self) -> dict[str, float]:
        """Return {"total", "main"}."""
        return {"total": self.total.item() / self.iterations, "main": self.main.item() / self.iterations}


def endless(loader: DataLoader, sampler: TrainingSampler, iteration: int) -> Iterator[dict]:
    """Yield batches from `iteration` of the run on, epoch after epoch."""
    while True:
        epoch, first_batch = divmod(iteration, sampler.batches_per_epoch)
        sampler.set_epoch(epoch, first_batch)
        for batch in loader:
            yield batch
            iteration += 1


def train_one_epoch(
    network: nn.Module,
    batches: Iterator[dict],
    iterations: int,
    criterion: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    device: torch.device,
    title: str,
    clip_grad: float = 0.0,
    precision: Precision | None = None,
) -> dict[str, float]:
    """Train for `iterations` batches and return the mean losses "total" and "main" and the last "lr".

    A `clip_grad` above 0 limits the norm of the gradient of all parameters together. The network computes in
    `precision`, float32 by default.

    Raises:
        UserError: the loss is no longer a number.
    """
    network.train()
    precision = precision or Precision()
    scaler = precision.scaler
    losses = RunningLoss.start(device)
    bar = tqdm(range(iterations), desc=title, unit="batch", dynamic_ncols=True)
    for step in bar:
        images, masks = to_device(next(batches), device)
        with precision.autocast():
            outputs = network(images)
        total, main = criterion(outputs, masks)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        if clip_grad:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), clip_grad)
        scaler.step(optimizer)
        scaler.update()
        lr = scheduler.get_last_lr()[0]
        scheduler.step()
        losses.add(total, main)
        if step % READ_EVERY == 0 or step == iterations - 1:
            mean = losses.means()["main"]
            bar.set_postfix(loss=f"{mean:.4f}", lr=f"{lr:.2e}")
            check_finite(mean, lr)
    return {**losses.means(), "lr": lr}


def check_finite(loss: float, lr: float) -> None:
    """Stop a run whose loss is no longer a number."""
    if not -torch.inf < loss < torch.inf:
        raise UserError(
            f"the loss became {loss} at learning rate {lr:.2e}; use a smaller --INIT_LR or a longer "
            "--WARMUP_ITERS (last.pth holds the last good epoch)"
        )
