"""Training as a user runs it: on a tiny data set, through the program's main."""

import json
import re

import pytest
import torch

import Structure
import train
from nets.models import unet
from tests.tiny_dataset import write_list
from tests.training_helpers import rows, run, same
from utils.checkpoint import read_checkpoint
from utils.program import run_program
from utils.training import session

HEAD = ["epoch", "lr", "train_loss", "val_loss", "train_loss_total", "seconds"]
HEAD += ["Acc", "Kappa", "mIoU", "FWIoU", "Precision", "Recall", "F1", "F2"]


def test_a_run_leaves_everything_in_its_folder(data, tmp_path, capsys):
    assert run(data, "--EPOCHS", "3", "--MODEL_SAVE_EPOCHS", "1", "--KEEP", "2") == 0
    folder = tmp_path / "pth_files" / "unet_test_resnet"
    names = {path.name for path in folder.iterdir()}
    fixed = {"best.pth", "last.pth", "unet_training_log.csv", "curves.png", "confusion.png", "options.json"}
    assert fixed <= names
    weights = sorted(name for name in names if name.startswith("unet-epoch"))
    assert [name.split("-loss")[0] for name in weights] == ["unet-epoch2", "unet-epoch3"]  # KEEP 2
    log = rows(folder)
    classes = [f"{score}_class_{k}" for k in range(3) for score in ("IoU", "Precision", "Recall", "F1", "F2")]
    assert list(log[0]) == HEAD + classes and [row["epoch"] for row in log] == ["1", "2", "3"]
    losses = re.fullmatch(r"unet-epoch3-loss(\d\.\d{4})-val_loss(\d\.\d{4})\.pth", weights[1]).groups()
    expected = [float(log[2][name]) for name in ("train_loss", "val_loss")]
    assert [float(loss) for loss in losses] == pytest.approx(expected, abs=6e-5)
    text = capsys.readouterr().out
    for word in ("CPU", "10", "class_2", "plain recipe", "lr", "curves.png", "parameter group  tensors"):
        assert word in text
    written = json.loads((folder / "options.json").read_text())
    assert written["flags"]["EPOCHS"] == 3
    (group,) = written["parameter_groups"]
    count = sum(p.numel() for p in Structure.load_network(folder / "best.pth").parameters())
    assert (group["group"], group["parameters"], group["lr"]) == ("all", count, 3e-4)

    checkpoint = read_checkpoint(folder / "best.pth")
    assert checkpoint["classes"]["names"] == ["class_0", "class_1", "class_2"]
    assert checkpoint["crop_size"] == [48, 48] and len(checkpoint["bands"]["names"]) == 10
    network = Structure.load_network(folder / "best.pth")
    assert network.bands == 10 and network.num_classes == 3 and not network.training
    assert network.about["epoch"] == checkpoint["epoch"] and "state_dict" not in network.about
    # The statistics of the training tiles travel in the network.
    assert 1800 < float(network.mean.mean()) < 2200 and 1000 < float(network.std.mean()) < 1300


def test_the_same_command_gives_the_same_bits_with_and_without_workers(data, tmp_path):
    for name, workers in (("a", "0"), ("b", "2")):
        assert run(data, "--EPOCHS", "2", "--RUN_NAME", name, "--NUM_WORKERS", workers) == 0
    a, b = (read_checkpoint(tmp_path / "pth_files" / name / "last.pth") for name in "ab")
    same(a["state_dict"], b["state_dict"])


@pytest.mark.parametrize("unit", ["--EPOCHS", "--MAX_ITERS"])
def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, unit, monkeypatch):
    # Dropout and sgd with momentum: both have a state that must come back; so have groups of several rates.
    rare = {
        "layer_decay": 0.8,
        "head_lr_factor": 2.0,
        "clip_grad": 0.1,
        "min_lr": 1e-3,
        "no_decay": ("norm",),
    }
    for name, value in rare.items():
        monkeypatch.setitem(unet.RECIPE["plain"], name, value)
    flags = [
        "--OPTIMIZER_TYPE",
        "sgd",
        "--MODEL_OPTIONS",
        "decoder_channels=8,dropout=0.5",
        "--CLASS_WEIGHTS",
        "auto",
        "--AUGMENT",
        "strong,cutmix=0.4,mosaic=0.4",
        "--RARE_CLASS_SAMPLING",
    ]
    length = "4" if unit == "--EPOCHS" else "7"
    assert run(data, unit, length, *flags, "--RUN_NAME", "whole") == 0
    # The same run, killed after its second epoch.
    finish, calls = session.Session.finish_epoch, []

    def killed(self, *args):
        finish(self, *args)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(session.Session, "finish_epoch", killed)
    assert run(data, unit, length, *flags, "--RUN_NAME", "parts") == 130
    monkeypatch.setattr(session.Session, "finish_epoch", finish)
    assert run_program(train.main, ["--RESUME"]) == 0
    whole, parts = (
        read_checkpoint(tmp_path / "pth_files" / name / "last.pth") for name in ("whole", "parts")
    )
    same(whole["state_dict"], parts["state_dict"])
    same(whole["training"]["optimizer"], parts["training"]["optimizer"])
    groups = whole["training"]["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([1e-3] * len(groups)) and len(groups) > 9
    logs = [rows(tmp_path / "pth_files" / name) for name in ("whole", "parts")]
    for row in (*logs[0], *logs[1]):
        row.pop("seconds")
    assert logs[0] == logs[1]


def test_a_run_clips_the_gradient_as_its_recipe_says(data, monkeypatch):
    limits, clip = [], torch.nn.utils.clip_grad_norm_

    def noted(parameters, limit):
        limits.append(limit)
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
    assert run(data) == 0 and not limits
    monkeypatch.setitem(unet.RECIPE["plain"], "clip_grad", 0.25)
    assert run(data) == 0 and limits == [0.25, 0.25]


def test_what_is_augmented_and_drawn_is_said_and_kept(data, tmp_path, capsys):
    words = ["--AUGMENT", "strong,rotate=45", "--RARE_CLASS_SAMPLING", "0.05", "--CLASS_WEIGHTS", "effective"]
    assert run(data, *words) == 0
    text = capsys.readouterr().out
    assert "strong: scale 0.5:2 times, rotate 45 degrees, cat_max_ratio 0.75 of a crop" in text
    assert "augment: color is left out, because the bands are not red, green and blue" in text
    assert "temperature 0.05" in text and re.search(r"class_2 .* 33\.33%\n", text)
    kept = json.loads((tmp_path / "pth_files" / "unet_test_resnet" / "options.json").read_text())
    assert kept["flags"]["AUGMENT"] == "strong,rotate=45" and kept["flags"]["RARE_CLASS_SAMPLING"] == 0.05
    assert "rotate 45 degrees" in kept["decisions"]["augment"]["value"]
    assert "color" not in kept["decisions"]["augment"]["value"]


def test_names_of_runs(data, tmp_path, capsys):
    (tmp_path / "pth_files" / "empty").mkdir(parents=True)
    assert run(data) == 0 and run(data) == 0
    assert (tmp_path / "pth_files" / "unet_test_resnet-2" / "best.pth").is_file()
    assert run(data, "--RUN_NAME", "empty") == 0  # taken over
    assert run(data, "--RUN_NAME", "empty") == 2
    assert "already holds a checkpoint; go on with --RESUME" in capsys.readouterr().err
    assert run(data, "--RESUME", "empty") == 2
    assert "is at its end; give a larger --EPOCHS" in capsys.readouterr().err
    assert run(data, "--RESUME", "empty", "--EPOCHS", "2") == 0
    assert run(data, "--RESUME", "empty", "--EPOCHS", "3", "--SEED", "5") == 2
    assert "--SEED 5 contradicts the run" in capsys.readouterr().err
    assert run(data, "--RESUME", "emty") == 2
    assert "there is no such run or file; nearest: empty" in capsys.readouterr().err


def test_iterations(data, tmp_path):
    assert run(data, "--MAX_ITERS", "5", "--MODEL_SAVE_EPOCHS", "1") == 0
    folder = tmp_path / "pth_files" / "unet_test_resnet"
    assert [row["iter"] for row in rows(folder)] == ["2", "4", "5"]
    assert len(list(folder.glob("unet-iter5-loss*.pth"))) == 1


def test_a_set_smaller_than_the_batch_still_trains(data, tmp_path, capsys):
    write_list(data, "train", ["t0"])
    assert run(data, "--BATCH_SIZE", "4") == 0
    assert "1 training tiles are fewer than --BATCH_SIZE 4" in capsys.readouterr().out
    assert float(rows(tmp_path / "pth_files" / "unet_test_resnet")[0]["train_loss"]) > 0
