"""The learning-rate range test, as a user runs it, and what it suggests."""

import csv

import numpy as np
import pytest
import torch

import train
from tests.tiny_dataset import write_dataset
from utils.options import train_options
from utils.program import run_program
from utils.training import lr_find, runs
from utils.training.lr_find import LOWEST, DivergedError, Watch, smoothed_losses, suggest

NETWORK = ["--MODEL_TYPE", "unet", "--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8"]


def test_only_a_table_and_a_picture_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data", bands=2, size=48, tiles=4)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    words = ["--DATASET_PATH", str(data), *NETWORK, "--NUM_WORKERS", "0", "--USE_CPU", "--BATCH_SIZE", "2"]
    assert run_program(train.main, [*words, "--OPTIMIZER_TYPE", "sgd", "--LR_FIND", "24"]) == 0
    folder = tmp_path / "pth_files" / "unet_test_resnet"
    assert {path.name for path in folder.iterdir()} == {"lr_find.csv", "lr_find.png"}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - {*folder.iterdir()} == set(before)
    with (folder / "lr_find.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["lr"]) for row in rows]
    assert 10 < len(rows) <= 24 and rates[0] == pytest.approx(LOWEST)
    assert np.diff(np.log(rates)) == pytest.approx(np.log(1e7) / 23, rel=1e-3)
    printed = capsys.readouterr().out
    assert ("--INIT_LR" in printed or "falls at no rate" in printed) and "lr_find.png" in printed
    # The run that follows stands in the same folder.
    assert runs.new_run(None, "unet_test_resnet").name == "unet_test_resnet"
    (folder / "last.pth").touch()
    assert runs.new_run(None, "unet_test_resnet").name == "unet_test_resnet-2"


def test_a_range_test_is_no_resumed_run(capsys):
    assert run_program(lambda argv: lr_find.find_lr(train_options(argv)), ["--LR_FIND", "--RESUME"]) == 2
    assert "--LR_FIND tries rates for a new run" in capsys.readouterr().err
    assert train_options(["--LR_FIND"]).LR_FIND == 100 and train_options([]).LR_FIND is None


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.logspace(-7, 0, 100)
    fall = 1 - 0.8 / (1 + np.exp(-4 * (np.log10(rates) + 3)))  # steepest at 1e-3
    best, end = suggest(rates, fall + (rates / 0.3) ** 2)
    assert best == pytest.approx(1e-3, rel=0.15) and 3e-3 < end < 0.1
    # A dip that is no descent before it, and another fall after the loss has turned, are noise.
    start = 0.01 * np.exp(-((np.log10(rates) + 6) ** 2))
    later = 0.9 * np.exp(-(((np.log10(rates) + 0.2) / 0.1) ** 2))
    assert suggest(rates, fall - start + (rates / 0.3) ** 2 - later)[0] == best
    assert suggest(rates, np.linspace(1, 2, 100)) is None and suggest([], []) is None


def test_the_test_ends_where_the_loss_leaves():
    values = iter([2.0, 1.0, 1.0, 50.0, 500.0])
    watch = Watch(lambda outputs, masks: (torch.tensor(next(values)), torch.zeros(())))
    with pytest.raises(DivergedError):
        for _ in range(5):
            watch({}, None)
    assert watch.losses == [2.0, 1.0, 1.0, 50.0]


def test_the_mean_over_neighbours_is_not_late():
    assert smoothed_losses([3.0]) == pytest.approx([3.0]) and smoothed_losses([2.0] * 9) == pytest.approx(
        [2.0] * 9
    )
    valley = np.abs(np.arange(101) - 50.0)
    smooth = smoothed_losses(valley)
    assert np.argmin(smooth) == 50 and smooth[30] == pytest.approx(valley[30], abs=0.01) and smooth[50] > 1
