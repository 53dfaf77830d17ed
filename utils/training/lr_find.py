"""The learning-rate range test: train while the rate rises, and look at what the loss does.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, https://arxiv.org/abs/1506.01186.
The rate rises by the same factor at each iteration; where the loss falls fastest is a good rate to train at.
"""

import argparse
import contextlib
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from nets.errors import UserError
from utils.distributed import leads
from utils.evaluation.plots import BLUE, GREEN, INK, MUTED, RULE, fonts, save
from utils.files import replacing
from utils.training.assembly import assemble
from utils.training.engine import train_one_epoch
from utils.training.plan import make_plan
from utils.training.runs import RANGE_TEST
from utils.training.setup import build_network

LOWEST, HIGHEST = 1e-7, 1.0
REACH = 0.05  # width of the mean over neighbours that is looked at, as a share of the test
NOTICEABLE = 0.05  # a fall of the loss, as a share of where it begins
TURN = 0.25  # a rise after it, as a share of the fall
MEMORY = 0.9  # the older losses' share in the running mean that tells divergence
DIVERGED = 4.0  # the test ends where that mean is so many times its least value


def find_lr(options: argparse.Namespace) -> list[str]:
    """Try learning rates with the network, data, loss and optimiser of the flags and return what to tell.

    Only the table and the picture are written, into the folder that the run will have.

    Raises:
        UserError: whatever is wrong with flags, data or files.
    """
    if options.RESUME is not None:
        raise UserError("--LR_FIND tries rates for a new run, --RESUME goes on with one: leave out either")
    options.SAVE_ITERS = 0  # a test is not gone on with
    plan = make_plan(options, None, None, build_network)
    session = assemble(plan)
    peak = plan.settings.lr
    count = options.LR_FIND

    def factor(iteration: int) -> float:
        return LOWEST * (HIGHEST / LOWEST) ** (iteration / (count - 1)) / peak

    watch = Watch(session.criterion, session.accumulate if session.weighted else 1)
    session.criterion, session.scheduler = watch, LambdaLR(session.optimizer, factor)
    with contextlib.suppress(DivergedError):
        train_one_epoch(session, count, "learning rates")
    if not watch.losses:
        raise UserError(
            "the very first loss is not a number: look at the images and their no-data values with "
            "tools/check_dataset.py"
        )
    rates = [peak * factor(iteration) for iteration in range(len(watch.losses))]
    smooth = smoothed_losses(watch.losses)
    chosen = suggest(rates, smooth)
    table, picture = (plan.folder / name for name in RANGE_TEST)
    if leads():
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_table(table, rates, watch.losses, smooth)
        draw_range_test(rates, watch.losses, smooth, None if chosen is None else chosen[0], picture)
    return ["", _words(chosen), f"table    {table}", f"picture  {picture}"]


class DivergedError(Exception):
    """The loss has left for good; higher rates would show nothing."""


class Watch(nn.Module):
    """A criterion that notes its losses and ends the test when they diverge.

    Args:
        criterion: of the run.
        parts: how many times it is asked per iteration.

    Attributes:
        losses: to minimise, one per iteration.
    """

    def __init__(self, criterion: nn.Module, parts: int = 1):
        super().__init__()
        self.criterion, self.parts = criterion, parts
        self.losses: list[float] = []
        self.asked: list[float] = []
        self.mean, self.least = 0.0, math.inf

    @property
    def class_weights(self) -> Tensor | None:
        """One weight per class, or None."""
        return self.criterion.class_weights

    def forward(self, outputs: dict[str, Tensor | list[Tensor]], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map outputs and masks (B, H, W) to (loss to minimise, main loss alone), both scalars."""
        total, main = self.criterion(outputs, masks)
        self.asked.append(total.item())
        if not math.isfinite(self.asked[-1]):
            raise DivergedError
        if len(self.asked) == self.parts:
            self._note(sum(self.asked) / self.parts)
            self.asked.clear()
        return total, main

    def _note(self, value: float) -> None:
        """Add the loss of an iteration and end the test if it has left."""
        self.losses.append(value)
        self.mean = MEMORY * self.mean + (1 - MEMORY) * value
        mean = self.mean / (1 - MEMORY ** len(self.losses))  # without the bias towards 0 at the start
        self.least = min(self.least, mean)
        if mean > DIVERGED * self.least:
            raise DivergedError


def smoothed_losses(losses: Sequence[float]) -> list[float]:
    """Return means over neighbours on both sides; a running mean would show each turn too late."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places - places[:, None]) / max(REACH * len(losses), 1)) ** 2)
    return (weights @ np.asarray(losses) / weights.sum(1)).tolist()


def first_descent(smooth: Sequence[float]) -> tuple[int, int] | None:
    """Return where the loss begins to fall and where it has fallen, before it turns for the first time.

    Later descents are noise: the weights have been spoilt by then. None where it never falls noticeably.
    """
    top = bottom = 0
    for place, loss in enumerate(smooth):
        if loss < smooth[bottom]:
            bottom = place
        fall = smooth[top] - smooth[bottom]
        if loss - smooth[bottom] > TURN * fall:
            if fall > NOTICEABLE * smooth[top]:
                return top, bottom
            top = bottom = place
    falls = len(smooth) and smooth[top] - smooth[bottom] > NOTICEABLE * smooth[top]
    return (top, bottom) if falls else None


def suggest(rates: Sequence[float], smooth: Sequence[float]) -> tuple[float, float] | None:
    """Return the rate where the loss falls fastest and the one where it has fallen; None for no fall."""
    found = first_descent(smooth)
    if found is None:
        return None
    top, bottom = found
    slopes = np.gradient(np.asarray(smooth), np.log(np.asarray(rates)))
    return rates[top + int(np.argmin(slopes[top : bottom + 1]))], rates[bottom]


def _words(chosen: tuple[float, float] | None) -> str:
    if chosen is None:
        return "the loss falls at no rate; try more iterations (--LR_FIND 300) or a larger --BATCH_SIZE"
    best, end = chosen
    return f"suggestion: --INIT_LR {best:.1e} (where the loss falls fastest; it turns at {end:.1e})"


def write_table(path: Path, rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float]) -> None:
    """Write the CSV file: learning rate, loss and mean over neighbours of each iteration."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lr", "loss", "smoothed_loss"])
        writer.writerows([f"{value:.6g}" for value in row] for row in zip(rates, losses, smooth, strict=True))


def draw_range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smooth: Sequence[float],
    chosen: float | None,
    path: Path,
) -> None:
    """Draw losses over learning rates, with the rate that is suggested, as PNG."""
    with fonts():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(rates, losses, color=MUTED, linewidth=0.9, alpha=0.6, label="loss of each iteration")
        axes.plot(rates, smooth, color=BLUE, linewidth=1.8, label="mean over neighbours")
        if chosen is not None:
            axes.axvline(chosen, color=GREEN, linewidth=1.4, linestyle="--", label=f"suggestion {chosen:.1e}")
        axes.set_xscale("log")
        # The last losses may be many times the others, which would be a flat line beside them.
        low, high = min(smooth), max([smooth[0], *smooth[: len(smooth) * 9 // 10]])
        margin = 0.15 * (high - low) + 1e-9
        axes.set_ylim(max(low - margin, 0.0), high + 2 * margin)
        axes.set_title("Learning-rate range test", loc="left", fontsize=11, color=INK, pad=26)
        axes.set_xlabel("learning rate", fontsize=9)
        axes.set_ylabel("loss", fontsize=9)
        axes.grid(color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, length=3)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=3,
            frameon=False,
            fontsize=8.5,
            borderaxespad=0.2,
        )
        save(figure, path)
