"""Recipes, learning-rate curves and parameter groups."""

import math

import pytest
import torch

from nets import create_model
from nets.registry import get_recipe
from utils.options import train_options
from utils.training.optimizers import build_optimizer, parameter_groups
from utils.training.recipe import resolve
from utils.training.schedulers import build_scheduler, lr_factor


def settings(*words: str, family: str = "segformer", total: int = 1000):
    return resolve(train_options(list(words)), get_recipe(family), total)


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
    chosen, _ = settings("--RECIPE", "paper", "--BATCH_SIZE", "8")
    assert chosen.lr == pytest.approx(3e-5) and chosen.head_lr_factor == 10 and chosen.warmup_iters == 1500
    assert chosen.optimizer == "adamw" and chosen.weight_decay == 0.01 and chosen.poly_power == 1.0


def test_another_optimiser_brings_its_usual_rate():
    assert settings("--OPTIMIZER_TYPE", "sgd", family="unet")[0].lr == 0.01
    assert settings("--OPTIMIZER_TYPE", "adamw", family="unet")[0].weight_decay == 0.01


def curve(*words: str, total: int = 100, step: int = 25) -> list[float]:
    chosen, _ = settings("--WARMUP_ITERS", "0", *words, family="unet", total=total)
    return [lr_factor(i, chosen, total, step) for i in range(total + 1)]


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
