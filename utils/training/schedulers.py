"""Learning-rate curves, a function of the iteration alone, so that a resumed run needs no history."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from utils.training.recipe import Settings

# The one-cycle curve: where it is highest, as a share of the run; the highest rate over the first one; the
# first over the last one.
ONE_CYCLE_PEAK, ONE_CYCLE_RISE, ONE_CYCLE_FALL = 0.3, 25.0, 1e4


def lr_factor(iteration: int, settings: Settings, total: int, step: int, lr: float | None = None) -> float:
    """Return the factor on an initial learning rate.

    Args:
        iteration: iterations done.
        settings: curve, power, floor, ratio and warm-up.
        total: iterations of the run.
        step: iterations per decay of the curves "step" and "exp".
        lr: initial learning rate of a parameter group; None is that of the run.
    """
    warmup = settings.warmup_iters
    if iteration < warmup:
        return settings.warmup_factor + (1 - settings.warmup_factor) * iteration / warmup
    progress = min((iteration - warmup) / max(total - warmup, 1), 1.0)
    floor = min(settings.min_lr / (settings.lr if lr is None else lr), 1.0)
    curves = {
        "poly": lambda: floor + (1 - floor) * (1 - progress) ** settings.poly_power,
        "cos": lambda: floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2,
        "step": lambda: max(settings.step_ratio ** _steps(iteration, settings, total, step), floor),
        "exp": lambda: max(settings.step_ratio ** (iteration / step), floor),
        "onecycle": lambda: _one_cycle(progress, floor),
        "constant": lambda: 1.0,
    }
    return curves[settings.scheduler]()


def _steps(iteration: int, settings: Settings, total: int, step: int) -> int:
    """Return how often the curve "step" has decayed."""
    if not settings.step_at:
        return iteration // step
    return sum(iteration >= round(share * total) for share in settings.step_at)


def _one_cycle(progress: float, floor: float) -> float:
    """Return the factor on the highest rate: up along half a cosine, then down along another to the end.

    Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    2017, https://arxiv.org/abs/1708.07120, with the shape and the numbers of PyTorch's OneCycleLR; the
    momentum stays as it is.
    """
    start, end = 1 / ONE_CYCLE_RISE, max(floor, 1 / ONE_CYCLE_RISE / ONE_CYCLE_FALL)
    if progress < ONE_CYCLE_PEAK:
        return start + (1 - start) * (1 - math.cos(math.pi * progress / ONE_CYCLE_PEAK)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - ONE_CYCLE_PEAK) / (1 - ONE_CYCLE_PEAK))) / 2


def build_scheduler(optimizer: Optimizer, settings: Settings, total: int, step: int) -> LambdaLR:
    """Return a scheduler that is stepped once per iteration; the floor is the same for every group."""

    def curve(lr: float) -> Callable[[int], float]:
        return lambda iteration: lr_factor(iteration, settings, total, step, lr)

    return LambdaLR(optimizer, [curve(group["lr"]) for group in optimizer.param_groups])
