"""Going on with a run: the checkpoint's flags count, but for those that may change between two sessions."""

import argparse
import sys
from pathlib import Path

from nets.errors import UserError
from utils.checkpoint import read_checkpoint
from utils.training.runs import find_resume, run_folder

# Hardware, place of the data, length and housekeeping may change; the rest would make it another run.
FREE = {
    "MODE",
    "GPU_ID",
    "GPU_LIST",
    "USE_CPU",
    "PARALLEL",
    "PROCESSES",
    "COMPILE",
    "CHANNELS_LAST",
    "GRAD_CHECKPOINT",
    "NUM_WORKERS",
    "KEEP_DECODED",
    "DATASET_PATH",
    "EXTRA_IMAGES",
    "EPOCHS",
    "MAX_ITERS",
    "MODEL_SAVE_EPOCHS",
    "KEEP",
    "SAVE_ITERS",
    "TENSORBOARD",
    "WANDB",
    "VAL_INTERVAL",
    "PATIENCE",
    "NAN_PATIENCE",
    "RESUME",
    "CONFIG",
    "RUN_NAME",
}


def resume(options: argparse.Namespace) -> tuple[argparse.Namespace, dict | None, Path | None]:
    """Return (flags of the run, its checkpoint, its folder); (options, None, None) for a new run.

    Raises:
        UserError: nothing to go on with, no training state, a contradicting flag, or a run at its end.
    """
    if options.RESUME is None:
        return options, None, None
    path = find_resume(options.RESUME, options.RUN_NAME)
    if path is None:
        print(f"run {options.RUN_NAME} has no checkpoint yet: starting it", file=sys.stderr)
        # A run that was killed may have written best.pth already.
        return options, None, run_folder(options.RUN_NAME)
    checkpoint = read_checkpoint(path)
    if "training" not in checkpoint:
        raise UserError(f"{path} holds weights without training state; go on from last.pth of that run")
    merged = merge(options, checkpoint["options"], path)
    training = checkpoint["training"]
    done, goal = training.get("validated_at", training["iteration"]), _goal(merged, checkpoint)
    if done >= goal:
        unit = "MAX_ITERS" if merged.MAX_ITERS else "EPOCHS"
        raise UserError(f"run {path.parent.name} is at its end; give a larger --{unit} to go on")
    return merged, checkpoint, path.parent


def merge(options: argparse.Namespace, saved: dict, path: Path) -> argparse.Namespace:
    """Return the saved flags with the free ones among the given in their place."""
    merged = argparse.Namespace(**vars(options))
    if "EPOCHS" in options.given and saved.get("MAX_ITERS"):
        raise UserError(f"the run of {path} counts iterations; use --MAX_ITERS instead of --EPOCHS")
    if "MAX_ITERS" in options.given and not saved.get("MAX_ITERS"):
        raise UserError(f"the run of {path} counts epochs; use --EPOCHS instead of --MAX_ITERS")
    for name, value in saved.items():
        value = tuple(value) if isinstance(value, list) else value
        if name in options.given and name in FREE:
            continue
        if name in options.given and getattr(options, name) != value:
            raise UserError(
                f"--{name} {getattr(options, name)} contradicts the run of {path}, which has {value}; "
                "leave it out or start a new run"
            )
        setattr(merged, name, value)
    return merged


def _goal(options: argparse.Namespace, checkpoint: dict) -> int:
    """Return the iterations of the whole run."""
    return options.MAX_ITERS or options.EPOCHS * checkpoint["training"]["iterations_per_epoch"]
