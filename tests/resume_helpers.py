"""Runs that are stopped and go on, for tests: their flags, and what two runs must share."""

from pathlib import Path

import train
from tests.training_helpers import COMMON, rows, same
from utils.checkpoint import read_checkpoint
from utils.program import run_program

FLAGS = [
    *("--OPTIMIZER_TYPE", "sgd", "--MODEL_OPTIONS", "decoder_channels=8,dropout=0.5", "--EMA", "0.9"),
    *("--AUGMENT", "strong,cutmix=0.4", "--BATCH_SIZE", "1", "--EPOCHS", "2", "--SAVE_ITERS", "2"),
]


def start(name: str, *words: str) -> int:
    """Train on the folder `data` and return the exit code."""
    return run_program(train.main, ["--DATASET_PATH", "data", *COMMON, *FLAGS, "--RUN_NAME", name, *words])


def check_equal(folder: Path, name: str) -> None:
    """Assert that a run ended with the checkpoints and the log of the run "whole"."""
    whole, other = (read_checkpoint(folder / "pth_files" / run / "last.pth") for run in ("whole", name))
    for state in (whole, other):
        state["training"].pop("seconds")
        state.pop("options")
        for row in state["training"]["rows"]:
            row.pop("seconds")
    same(whole, other)
    best = [read_checkpoint(folder / "pth_files" / run / "best.pth") for run in ("whole", name)]
    same(best[0]["state_dict"], best[1]["state_dict"])
    logs = [rows(folder / "pth_files" / run) for run in ("whole", name)]
    for row in (*logs[0], *logs[1]):
        row.pop("seconds")
    assert logs[0] == logs[1] and [row["epoch"] for row in logs[1]] == ["1", "2"]
