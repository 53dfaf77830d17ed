"""Training as a user runs it: on a tiny data set, through the program's main."""

import csv
import json
import re

import numpy as np
import pytest
import torch

import Structure
import train
from nets.errors import UserError
from nets.models import unet
from tests.tiny_dataset import write_dataset, write_list
from utils.checkpoint import read_checkpoint
from utils.program import run_program

NETWORK = ["--MODEL_TYPE", "unet", "--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8"]
COMMON = [*NETWORK, "--BATCH_SIZE", "2", "--NUM_WORKERS", "0", "--USE_CPU"]
HEAD = ["epoch", "lr", "train_loss", "val_loss", "train_loss_total", "seconds"]
HEAD += ["Acc", "Kappa", "mIoU", "FWIoU", "Precision", "Recall", "F1", "F2"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A ten-band, three-class set of 48-pixel tiles; the runs go to this folder too."""
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path / "data", bands=10, size=48, tiles=5)


def run(data, *words: str) -> int:
    return run_program(train.main, ["--DATASET_PATH", str(data), *COMMON, *words])


def rows(folder) -> list[dict]:
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
    from utils.training import session

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


def test_fine_tuning_with_another_class_count(data, tmp_path, capsys):
    assert run(data) == 0
    source = tmp_path / "pth_files" / "unet_test_resnet" / "best.pth"
    assert run(data, "--PRETRAIN_MODEL", str(source), "--NUM_CLASS", "5", "--INIT_LR", "1e-12") == 0
    text = capsys.readouterr().out
    assert "not loaded: classifier.weight: [3, 8, 3, 3] in the file, [5, 8, 3, 3] here" in text
    assert "as in --PRETRAIN_MODEL (checkpoint)" in text
    old, new = (
        read_checkpoint(source),
        read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet-2" / "last.pth"),
    )
    key = "decoder.blocks.0.0.conv.weight"
    torch.testing.assert_close(old["state_dict"][key], new["state_dict"][key])
    assert new["classes"]["names"][3:] == ["class_3", "class_4"]


def test_wrappers_prefixes_are_stripped_and_foreign_files_refused(data, tmp_path, capsys):
    assert run(data) == 0
    state = read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet" / "best.pth")["state_dict"]
    torch.save({"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pth")
    capsys.readouterr()
    assert run(data, "--PRETRAIN_MODEL", str(tmp_path / "wrapped.pth")) == 0
    assert "not loaded" not in capsys.readouterr().out
    torch.save({"foreign": torch.zeros(3)}, tmp_path / "foreign.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 not a zip")
    for name, message in (
        ("foreign", "nothing in"),
        ("broken", "is damaged or not a PyTorch checkpoint"),
        ("absent", "does not exist"),
    ):
        assert run(data, "--PRETRAIN_MODEL", str(tmp_path / f"{name}.pth"), "--RUN_NAME", name) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "pth_files" / name).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--BANDS", "4"], "4 bands were asked for"),
        (["--NUM_CLASS", "2"], "2"),
        (["--MODEL_TYPE", "unett"], "no network is named 'unett'; nearest: unet"),
        (["--BACKBONE_TYPE", "resnet5o"], "no backbone is named 'resnet5o'; nearest: resnet50"),
        (["--MODEL_OPTIONS", "decoder_chanels=8"], "no option 'decoder_chanels'; nearest: decoder_channels"),
        (["--MODEL_OPTIONS", "bands=8"], "use --BANDS instead"),
        (["--CLASS_WEIGHTS", "1,2"], "3 numbers"),
        (["--AUGMENT", "light,rotatee=5"], "no key is named 'rotatee'; nearest: rotate"),
        (["--AUGMENT", "light,color=1"], "--AUGMENT color is not possible"),
        (["--NORMALIZATION", "checkpoint"], "needs --PRETRAIN_MODEL"),
        (["--RUN_NAME", "a/b"], "is not a folder name"),
        (["--MODEL_TYPE", "deeplab", "--BATCH_SIZE", "1", "--MODEL_OPTIONS", ""], "one value per channel"),
        (["--INIT_LR", "1e30", "--OPTIMIZER_TYPE", "sgd", "--EPOCHS", "20"], "use a smaller --INIT_LR"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(data, tmp_path, capsys, words, message):
    assert run(data, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    if "--INIT_LR" not in words:
        assert not (tmp_path / "pth_files").exists(), "something was written before the mistake was found"


@pytest.mark.parametrize("flags", [["--GPU_ID", "0"], ["--GPU_LIST", "0,1"]])
def test_a_gpu_that_does_not_exist(data, capsys, monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = [word for word in COMMON if word != "--USE_CPU"]
    assert run_program(train.main, ["--DATASET_PATH", str(data), *words, *flags]) == 2
    assert "GPU 0 was asked for; PyTorch sees no GPU here" in capsys.readouterr().err


def test_a_bad_label_is_named_before_anything_is_written(data, tmp_path, capsys):
    from tests.tiny_dataset import write_raster

    (data / "classes.json").write_text('{"names": ["a", "b", "c"], "ignore_index": 255}')
    label = np.zeros((48, 48), dtype=np.uint8)
    label[:2, :5] = 77
    write_raster(data / "labels" / "v1.png", label)
    assert run(data) == 2
    error = capsys.readouterr().err
    assert "v1.png" in error and "77" in error and "10" in error
    assert not (tmp_path / "pth_files").exists()


def test_a_pretrained_backbone_keeps_its_colours_on_the_named_bands(data, tmp_path, capsys):
    import timm

    names = ["b1", "blue", "green", "red", *(f"b{i}" for i in range(5, 11))]
    (data / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"], "bands": names}))
    donor = timm.create_model("test_resnet").state_dict()
    torch.save(donor, tmp_path / "donor.pth")
    assert run(data, "--PRETRAIN_BACKBONE", str(tmp_path / "donor.pth"), "--INIT_LR", "1e-12") == 0
    assert "red, green, blue are red, green, blue" in capsys.readouterr().out
    state = read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet" / "best.pth")["state_dict"]
    stem = next(v for k, v in state.items() if k.startswith("backbone") and v.ndim == 4)
    original = next(v for v in donor.values() if v.ndim == 4)
    torch.testing.assert_close(stem[:, [3, 2, 1]], original * 0.3)
    torch.testing.assert_close(stem[:, 0], original.mean(1) * 0.3)


def test_an_image_that_breaks_in_a_worker_is_still_one_line(data, capsys, monkeypatch):
    from utils.data.dataset import SegmentationDataset

    def broken(self, sample, *_):
        raise UserError(f"{sample.image} is damaged")

    monkeypatch.setattr(SegmentationDataset, "_read", broken)
    assert run(data, "--NUM_WORKERS", "1") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(lines) == 1 and lines[0].endswith(".tif is damaged") and "Traceback" not in lines[0]
