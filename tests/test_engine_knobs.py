"""The knobs of the loop: each does what it says, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from nets import create_model
from nets.errors import UserError
from tests.engine_helpers import network, trainer
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON
from train import main
from utils.checkpoint import read_checkpoint
from utils.options import train_options
from utils.training.engine import train_one_epoch
from utils.training.freeze import freeze
from utils.training.memory import advice_on_memory
from utils.training.optimizer_names import find_optimizer
from utils.training.optimizers import fused
from utils.training.precision import allow_tf32
from utils.training.setup import check_training_step


def test_frozen_parts_stay_and_their_batch_norms_keep_their_statistics():
    model = network().float()
    norms = freeze(model, "backbone, decoder.*.norm")
    before = copy.deepcopy(model.state_dict())
    train_one_epoch(trainer(model, frozen=norms), 2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("backbone") for name in changed)
    assert any(name.startswith("classifier") for name in changed)
    model = network()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert set(freeze(model, "batch_norm")) == set(norms) and model.classifier.weight.requires_grad
    for names, message in (
        ("backbon", "no part of this network has that name; nearest: backbone"),
        ("*", "nothing is left to be trained"),
    ):
        with pytest.raises(UserError, match=message):
            freeze(network(), names)


def test_a_batch_of_one_needs_frozen_batch_norms():
    model = create_model("pspnet", bands=2, num_classes=3, backbone="test_resnet")
    with pytest.raises(UserError, match=r"one value per channel at 1 image.*or --FREEZE batch_norm"):
        check_training_step(model, 1, (64, 64))
    check_training_step(model, 1, (64, 64), "batch_norm")
    check_training_step(model, 2, (64, 64), "backbone")
    assert all(parameter.requires_grad for parameter in model.parameters()) and model.training


def test_the_average_of_the_weights():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = network().float()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    seen = []
    run = trainer(model, ema=average)
    for _ in range(3):
        train_one_epoch(run, 1)
        seen.append(copy.deepcopy(model.state_dict()))
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * (0.75 * seen[0][name] + 0.25 * seen[1][name]) + 0.25 * seen[2][name]
            torch.testing.assert_close(value, expected)


def test_channels_last_images_and_the_same_losses():
    plain, last = network().float(), network().float().to(memory_format=torch.channels_last)
    images, _ = trainer(last, memory_format=torch.channels_last).next_batch()
    assert images.is_contiguous(memory_format=torch.channels_last)
    losses = train_one_epoch(trainer(last, memory_format=torch.channels_last), 2)
    assert losses["main"] == pytest.approx(train_one_epoch(trainer(plain), 2)["main"], rel=1e-4)


def test_tf32(monkeypatch):
    for words, expected in (
        ([], ("on", "--AMP auto")),
        (["--AMP", "off"], ("off", "--AMP off")),
        (["--AMP", "off", "--TF32", "on"], ("on", "--TF32")),
    ):
        assert allow_tf32(train_options(words)) == expected
        assert torch.backends.cudnn.allow_tf32 == (expected[0] == "on")
    torch.set_float32_matmul_precision("highest")
    assert fused(find_optimizer("adamw"), "cuda:0") == {"fused": True}
    assert fused(find_optimizer("sgd"), "cpu") == fused(find_optimizer("rprop"), "cuda:0") == {}


def test_too_little_memory_is_one_line(monkeypatch):
    gib = 2**30
    properties = type("Properties", (), {"total_memory": 24 * gib})
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 23.5 * gib)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    options = train_options(["--BATCH_SIZE", "8", "--GRAD_CHECKPOINT", "--AMP", "off"])
    message = (
        r"GPU 1 has 24.0 GiB, and --BATCH_SIZE 8 with crops of 512x384 needed more than 23.5 GiB; "
        r"try --AMP auto, --BATCH_SIZE 4 --ACCUMULATE 6, --PARALLEL fsdp on several GPUs, "
        r"a smaller --CROP_SIZE"
    )
    with (
        pytest.raises(UserError, match=message),
        advice_on_memory(options, (512, 384), torch.device("cuda", 1), 3),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def run(folder, *words: str) -> dict:
    """Train as train.py does and return the last checkpoint of the run "knobs"."""
    main(["--DATASET_PATH", str(folder / "data"), *COMMON, *words])
    return read_checkpoint(folder / "pth_files" / "knobs" / "last.pth")


def test_a_run_with_all_of_them_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", bands=3, size=48, tiles=8)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    words = ["--EMA", "0.6", "--ACCUMULATE", "2", "--FREEZE", "backbone.body.conv1", "--CLIP_GRAD", "1"]
    words += ["--GRAD_CHECKPOINT", "--CHANNELS_LAST", "--COMPILE", "--RUN_NAME", "knobs"]
    words += ["--LR_SCHEDULER", "step", "--LR_STEP", "9"]
    whole = run(tmp_path, *words, "--EPOCHS", "2")
    assert compiled == ["SegmentationModel"]
    text = capsys.readouterr().out
    assert "2 x 2 images per step" in text and "of 2 iterations of 4 crops" in text
    (tmp_path / "pth_files" / "knobs").rename(tmp_path / "pth_files" / "whole")
    run(tmp_path, *words, "--EPOCHS", "1")
    parts = run(tmp_path, "--RESUME", "knobs", "--EPOCHS", "2")
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], tensor), name
    live = whole["training"]["ema"]["network"]
    assert all(torch.equal(parts["training"]["ema"]["network"][name], live[name]) for name in live)
    assert not all(torch.equal(live[name], whole["state_dict"][name]) for name in live)
    assert parts["training"]["ema"]["count"] == 4
