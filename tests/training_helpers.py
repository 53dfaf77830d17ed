"""Runs of train.py with a tiny network: their flags, logs and results, for tests."""

import csv

import torch

import train
from utils.program import run_program

NETWORK = ["--MODEL_TYPE", "unet", "--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8"]
COMMON = [*NETWORK, "--BATCH_SIZE", "2", "--NUM_WORKERS", "0", "--USE_CPU"]


def run(data, *words: str) -> int:
    """Run train.py on a data set and return its exit code."""
    return run_program(train.main, ["--DATASET_PATH", str(data), *COMMON, *words])


def rows(folder) -> list[dict]:
    """Return the rows of a run's log."""
    with (folder / "unet_training_log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(one, other) -> None:
    """Assert that two nested values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other
