"""Optimisers by name, the flags on rates of parts, and the newer learning-rate curves."""

import pytest
import torch
from torch import nn

from nets.errors import UserError
from tests.recipe_helpers import curve, settings
from utils.options import train_options
from utils.training import setup
from utils.training.optimizer_names import find_optimizer
from utils.training.optimizers import build_optimizer, parameter_groups


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.classifier = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.classifier(self.norm(self.backbone(x)))


TORCH = [
    "adam",
    "adamw",
    "sgd",
    "nadam",
    "radam",
    "rmsprop",
    "adagrad",
    "adadelta",
    "adamax",
    "asgd",
    "rprop",
]
TIMM = ["lamb", "lion", "lars", "adan", "Ada-Belief", "madgrad", "muon", "nesterov"]


@pytest.mark.parametrize("name", [*TORCH, "adafactor", *TIMM])
def test_every_optimiser_trains(name):
    torch.manual_seed(0)
    network = Net()
    chosen, decisions = settings("--OPTIMIZER_TYPE", name, family="unet")
    optimizer = build_optimizer(network, chosen)
    reasons = {entry: reason for entry, _, reason in decisions}
    assert reasons["optimizer"] == "--OPTIMIZER_TYPE" and reasons["weight_decay"]
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(2, 2, 8, 8)).square().mean().backward()
        optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert any(changed) and all(p.isfinite().all() for p in network.parameters())


def test_what_is_usual_and_what_is_said():
    def built(*words):
        return build_optimizer(Net(), settings(*words, family="unet")[0])

    sgd = built("--OPTIMIZER_TYPE", "SGD")
    assert type(sgd) is torch.optim.SGD and sgd.defaults["momentum"] == 0.9 and sgd.defaults["lr"] == 0.01
    assert not sgd.defaults["nesterov"] and built("--OPTIMIZER_TYPE", "nesterov").defaults["nesterov"]
    assert sgd.param_groups[0]["weight_decay"] == 1e-4
    adam = built()
    assert type(adam) is torch.optim.Adam and adam.defaults["betas"] == (0.9, 0.999)
    lion = built("--OPTIMIZER_TYPE", "lion")
    assert type(lion).__module__.startswith("timm") and lion.defaults["betas"] == (0.9, 0.99)
    assert lion.defaults["lr"] == 1e-4  # its own, not what the recipe says of Adam
    assert built("--OPTIMIZER_TYPE", "lion", "--MOMENTUM", "0.8").defaults["betas"] == (0.8, 0.99)
    assert built("--OPTIMIZER_TYPE", "rmsprop").defaults["momentum"] == 0
    assert built("--OPTIMIZER_TYPE", "rmsprop", "--MOMENTUM", "0.5").defaults["momentum"] == 0.5
    chosen, _ = settings("--OPTIMIZER_TYPE", "adagrad", family="unet")
    assert (chosen.momentum, chosen.lr, chosen.weight_decay) == (None, 0.01, 0.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--OPTIMIZER_TYPE", "adamm"], "there is no optimiser 'adamm'; nearest: adam"),
        (["--OPTIMIZER_TYPE", "lbfgs"], "lbfgs is given; it needs a function to call again"),
        (["--OPTIMIZER_TYPE", "adahessian"], "it needs second derivatives"),
        (["--OPTIMIZER_TYPE", "adagrad", "--MOMENTUM", "0.5"], "--MOMENTUM 0.5 is given; adagrad has none"),
        (
            ["--OPTIMIZER_TYPE", "rprop", "--WEIGHT_DECAY", "0.1"],
            "--WEIGHT_DECAY 0.1 is given; rprop has none",
        ),
        (["--LOSS_TYPE", "dice", "--LABEL_SMOOTHING", "0.1"], "--LABEL_SMOOTHING acts on ce and ohem"),
    ],
)
def test_mistakes_are_found_before_the_data_are_read(words, message):
    with pytest.raises(UserError, match=message):
        setup.check_names(train_options(words))
    assert (
        setup.check_names(train_options(["--OPTIMIZER_TYPE", "Lamb", "--LABEL_SMOOTHING", "0.1"])) == "unet"
    )


def test_missing_packages_are_named():
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"--OPTIMIZER_TYPE bnblion: .*choose another"):
            find_optimizer("bnblion")


def test_factors_on_the_rates_of_parts():
    words = ["--HEAD_LR_FACTOR", "10", "--BACKBONE_LR_FACTOR", "0.1", "--INIT_LR", "0.01", "--CLIP_GRAD", "2"]
    chosen, decisions = settings(*words, family="unet")
    reasons = {name: reason for name, _, reason in decisions}
    assert reasons["head_lr_factor"] == "--HEAD_LR_FACTOR" and reasons["clip_grad"] == "--CLIP_GRAD"
    assert chosen.clip_grad == 2
    rates = {group["name"]: group["lr"] for group in parameter_groups(Net(), chosen)}
    assert rates == {"head": pytest.approx(0.1), "backbone": pytest.approx(0.001)}

    chosen, _ = settings("--LAYER_DECAY", "0.5", family="unet")
    with pytest.raises(UserError, match=r"--LAYER_DECAY 0\.5: this network has no backbone"):
        parameter_groups(nn.Sequential(nn.Conv2d(1, 1, 1)), chosen)
    network = Net()
    network.backbone.name = "mit_b0"
    with pytest.raises(UserError, match=r"not timm's and states no layers; give --LAYER_DECAY 1"):
        parameter_groups(network, chosen)


def test_one_cycle_is_pytorchs():
    ours = curve("--LR_SCHEDULER", "onecycle", total=1000)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=1001)
    for step in range(1000):
        assert ours[step] == pytest.approx(theirs.get_last_lr()[0], abs=0.006), step
        optimizer.step()
        theirs.step()
    assert ours[0] == pytest.approx(1 / 25) and max(ours) == ours[300] == 1
    assert ours[1000] == pytest.approx(1 / 25e4)
    assert curve("--LR_SCHEDULER", "onecycle", "--MIN_LR", "1e-5", "--INIT_LR", "1e-3")[-1] == pytest.approx(
        0.01
    )


def test_one_cycle_needs_no_warm_up_and_constant_is_constant():
    chosen, decisions = settings("--LR_SCHEDULER", "onecycle")
    assert chosen.warmup_iters == 0
    assert ("warmup_iters", 0, "onecycle rises by itself") in decisions
    assert settings("--LR_SCHEDULER", "onecycle", "--WARMUP_ITERS", "7")[0].warmup_iters == 7
    assert set(curve("--LR_SCHEDULER", "constant")) == {1.0}
    assert settings("--LR_SCHEDULER", "constant")[0].warmup_iters == 50
