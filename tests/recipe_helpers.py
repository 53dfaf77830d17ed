"""What flags of train.py make of a recipe, for tests."""

from utils.options import train_options
from utils.training.recipe import choose_recipe, resolve
from utils.training.schedulers import lr_factor


def settings(*words: str, family: str = "segformer", total: int = 1000):
    """Return the settings of a run of train.py and the decisions behind them."""
    options = train_options(["--MODEL_TYPE", family, *words])
    return resolve(options, choose_recipe(options), total)


def curve(*words: str, total: int = 100, step: int = 25) -> list[float]:
    """Return the factor on the learning rate at every iteration of a run."""
    chosen, _ = settings("--WARMUP_ITERS", "0", *words, family="unet", total=total)
    return [lr_factor(i, chosen, total, step) for i in range(total + 1)]
