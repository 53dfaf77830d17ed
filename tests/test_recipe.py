"""Recipes, learning-rate curves and parameter groups."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from nets import create_model
from nets.backbones.catalogue import create_backbone
from nets.backbones.depth import find_layers
from tests.recipe_helpers import curve, settings
from utils.options import train_options
from utils.training import assembly
from utils.training.announce import groups_table
from utils.training.engine import Trainer, train_one_epoch
from utils.training.optimizers import build_optimizer, describe_groups, freeze_norms, parameter_groups
from utils.training.schedulers import build_scheduler, lr_factor


def test_flags_win_and_every_decision_has_a_reason():
    chosen, decisions = settings("--INIT_LR", "0.5", "--LR_SCHEDULER", "cos")
    reasons = {name: reason for name, _, reason in decisions}
    assert chosen.lr == 0.5 and reasons["lr"] == "--INIT_LR"
    assert chosen.scheduler == "cos" and reasons["scheduler"] == "--LR_SCHEDULER"
    assert chosen.optimizer == "adam" and reasons["optimizer"] == "plain recipe"
    assert all(reasons.values())


def test_plain_warm_up_is_at_most_a_twentieth_of_the_run():
    for total in (1, 19, 20, 333, 100_000):
        assert settings(total=total)[0].warmup_iters <= total / 20
    assert settings(total=1000)[0].warmup_iters == 50


def test_paper_recipe_scales_the_rate_with_the_batch():
    chosen, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "8", "--SCALE_LR", "on")
    assert chosen.lr == pytest.approx(3e-5) and chosen.head_lr_factor == 10 and chosen.warmup_iters == 1500
    assert chosen.optimizer == "adamw" and chosen.weight_decay == 0.01 and chosen.poly_power == 1.0


def test_another_optimiser_brings_its_usual_rate():
    assert settings("--OPTIMIZER_TYPE", "sgd", family="unet")[0].lr == 0.01
    assert settings("--OPTIMIZER_TYPE", "adamw", family="unet")[0].weight_decay == 0.01


def test_curves():
    poly = curve("--LR_SCHEDULER", "poly", "--POLY_POWER", "2")
    assert poly[0] == 1 and poly[50] == pytest.approx(0.25) and poly[100] == 0
    cos = curve("--LR_SCHEDULER", "cos")
    assert cos[0] == 1 and cos[50] == pytest.approx(0.5) and cos[100] == pytest.approx(0)
    stairs = curve("--LR_SCHEDULER", "step", "--STEP_RATIO", "0.5")
    assert stairs[24] == 1 and stairs[25] == 0.5 and stairs[75] == 0.125
    slope = curve("--LR_SCHEDULER", "exp", "--STEP_RATIO", "0.5")
    assert slope[25] == pytest.approx(0.5) and slope[12] == pytest.approx(0.5 ** (12 / 25))


def test_warm_up_rises_in_a_line_and_the_floor_holds():
    chosen, _ = settings("--RECIPE", "paper", "--WARMUP_ITERS", "10", total=100)
    assert lr_factor(0, chosen, 100, 1) == pytest.approx(1e-6)
    assert lr_factor(5, chosen, 100, 1) == pytest.approx(0.5, abs=1e-5)
    assert lr_factor(10, chosen, 100, 1) == 1
    sgd, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "16", family="unet", total=100)
    assert lr_factor(100, sgd, 100, 1) * sgd.lr == pytest.approx(1e-4)


def test_groups_of_the_segformer_recipe():
    network = create_model("segformer", bands=3, num_classes=2, backbone="b0", decoder_channels=8)
    chosen, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "16")
    groups = {group["name"]: group for group in parameter_groups(network, chosen)}
    assert set(groups) == {"backbone", "backbone, no decay", "head", "head, no decay"}
    assert groups["head"]["lr"] == pytest.approx(6e-4) and groups["backbone"]["lr"] == pytest.approx(6e-5)
    norms = [
        p
        for m in network.modules()
        if isinstance(m, (torch.nn.LayerNorm, torch.nn.BatchNorm2d))
        for p in m.parameters()
    ]
    spared = groups["backbone, no decay"]["params"] + groups["head, no decay"]["params"]
    assert {id(p) for p in spared} == {id(p) for p in norms}
    assert all(group["weight_decay"] == 0 for name, group in groups.items() if "no decay" in name)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(network.parameters()))


def test_the_floor_is_the_same_for_all_groups():
    chosen, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "16", family="setr", total=100)
    slow, fast = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [slow], "lr": 1e-3}, {"params": [fast], "lr": 1e-2}])
    scheduler = build_scheduler(optimizer, chosen, 100, 100)
    for _ in range(100):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([1e-4, 1e-4])


def test_warm_up_longer_than_the_run_is_said():
    _, decisions = settings("--RECIPE", "paper", total=1000)
    reasons = {name: reason for name, _, reason in decisions}
    assert reasons["warmup_iters"] == "paper recipe; longer than this run of 1000: give --WARMUP_ITERS"


@pytest.mark.parametrize(
    ("name", "unit", "layers"),
    [
        ("vit_tiny", "block", {"cls_token": 0, "pos_embed": 0, "blocks.0.": 1, "blocks.11.": 12}),
        ("mae_b", "block", {"cls_token": 0, "patch_embed.": 0, "blocks.0.": 1, "blocks.11.": 12}),
        ("swin_t", "block", {"patch_embed.": 0, "layers_0.blocks.0.": 1, "layers_3.blocks.1.": 12}),
        ("convnext_t", "block", {"stem_": 0, "stages_0.blocks.0.": 1, "stages_3.blocks.2.": 18}),
        (
            "convnext_t",
            "stage",
            {"stem_": 0, "stages_2.downsample.": 0, "stages_0.": 1, "stages_3.blocks.": 4},
        ),
        ("cbam_resnet18", "stage", {"conv1.": 0, "layer1.0.": 1, "layer4.1.": 4}),
    ],
)
def test_layers_of_a_backbone(name, unit, layers):
    with torch.device("meta"):
        backbone = create_backbone(name, bands=5)
    found = find_layers(backbone, unit)
    names = [key for key, _ in backbone.named_parameters() if key.startswith("body.")]
    assert set(found) == set(names) and max(found.values()) == max(layers.values())
    for beginning, layer in layers.items():
        own = [key for key in names if key.removeprefix("body.").removeprefix("model.").startswith(beginning)]
        assert own and all(found[key] == layer for key in own)


def test_layers_of_another_backbone():
    with torch.device("meta"), pytest.raises(ValueError, match="mit_b0 is not timm's"):
        find_layers(create_backbone("mit_b0", bands=3))


def test_decay_by_block():
    with torch.device("meta"):
        network = create_model("upernet", bands=3, num_classes=2, backbone="vit_tiny")
    chosen, _ = settings("--INIT_LR", "1", family="upernet")
    chosen = dataclasses.replace(chosen, layer_decay=0.5, backbone_lr_factor=0.1)
    groups = {group["name"]: group for group in parameter_groups(network, chosen)}
    assert next(iter(groups)) == "head" and groups["head"]["lr"] == 1
    assert groups["backbone"]["lr"] == 0.1 and len(groups) == 15  # the pyramid on the maps
    assert groups["backbone layer 12"]["lr"] == pytest.approx(0.05)
    assert groups["backbone layer 0"]["lr"] == pytest.approx(0.1 * 0.5**13)


def test_frozen_norms_normalise_by_the_batch_and_keep_their_weights():
    network = create_model("unet", bands=3, num_classes=2, backbone="test_resnet", decoder_channels=8)
    chosen, _ = settings("--INIT_LR", "0.1", family="unet", total=10)
    chosen = dataclasses.replace(chosen, frozen_norm=True)
    freeze_norms(network, chosen)
    optimizer = build_optimizer(network, chosen)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left = [name for name, parameter in network.named_parameters() if id(parameter) not in trained]
    norm = next(m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    mean = norm.running_mean.clone()
    assert len(left) == 2 * sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.backbone.modules())
    assert all(name.startswith("backbone.") for name in left)
    network.train()(torch.randn(2, 3, 64, 64))["logits"].sum().backward()
    assert norm.weight.grad is None and not torch.equal(norm.running_mean, mean)


def test_norms_are_frozen_before_several_processes_share_the_network(monkeypatch):
    network = create_model("unet", bands=3, num_classes=2, backbone="test_resnet", decoder_channels=8)
    chosen, _ = settings("--INIT_LR", "0.1", family="unet", total=10)
    learning = {}

    def wrap(own: torch.nn.Module, *_: object) -> torch.nn.Module:
        learning.update((name, parameter.requires_grad) for name, parameter in own.named_parameters())
        return own

    monkeypatch.setattr(assembly, "distribute", wrap)
    plan = SimpleNamespace(
        network=network,
        options=train_options([]),
        devices=[torch.device("cpu")],
        settings=dataclasses.replace(chosen, frozen_norm=True),
    )
    assembly.prepare(plan, torch.nn.Identity())
    norms = {
        f"backbone.{name}.weight"
        for name, module in network.backbone.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }
    # What DistributedDataParallel is to exchange when it is built, it waits for in every step.
    assert norms and {name for name, learns in learning.items() if not learns} >= norms


def test_table_of_groups():
    network = torch.nn.Sequential(torch.nn.Conv2d(10, 100, 3), torch.nn.BatchNorm2d(100))
    chosen, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "16")
    optimizer = build_optimizer(network, dataclasses.replace(chosen, head_lr_factor=1.0))
    build_scheduler(optimizer, chosen, 10_000, 1)  # the warm-up must not show
    assert groups_table(describe_groups(optimizer)) == [
        "parameter group  tensors  parameters     lr  weight decay",
        "all                    2       9,100  6e-05          0.01",
        "all, no decay          2         200  6e-05             0",
    ]


class Slope(torch.nn.Module):
    """Two parameters at 0 whose loss 30 a + 40 b has a gradient of length 50."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, _images: torch.Tensor) -> torch.Tensor:
        return 30 * self.a + 40 * self.b


@pytest.mark.parametrize(("limit", "length"), [(0.0, 50.0), (0.5, 0.5), (100.0, 50.0)])
def test_the_gradient_of_all_parameters_together_is_clipped(limit, length):
    network = Slope()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    batches = iter([{"image": torch.zeros(1, 1, 1, 1), "valid": torch.ones(1, 1, 1).bool()}])
    trainer = Trainer(
        model=network,
        batches=batches,
        criterion=lambda outputs, _masks: (outputs, outputs),
        optimizer=optimizer,
        scheduler=scheduler,
        device=torch.device("cpu"),
        clip_grad=limit,
    )
    train_one_epoch(trainer, 1)
    step = [network.a.item(), network.b.item()]
    assert step == pytest.approx([-0.6 * length, -0.8 * length], rel=1e-4)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_the_scheduler_moves_every_group(kind):
    network = torch.nn.Conv2d(1, 1, 1)
    chosen, _ = settings("--OPTIMIZER_TYPE", kind, family="unet", total=4)
    optimizer = build_optimizer(network, chosen)
    scheduler = build_scheduler(optimizer, chosen, 4, 1)
    for iteration in range(5):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(chosen.lr * (1 - iteration / 4) ** 0.9)
        optimizer.step()
        scheduler.step()
    assert math.isclose(optimizer.param_groups[0]["lr"], 0, abs_tol=1e-12)
