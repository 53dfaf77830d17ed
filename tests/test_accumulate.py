"""A batch in parts: gradients, statistics and dropout of the whole, and how many parts a recipe wants."""

import copy

import pytest
import torch
from torch import nn

from tests.engine_helpers import Toy, batch, network, scene
from utils.options import train_options
from utils.training.accumulate import Parts, is_mean_over_pixels
from utils.training.criterion import Criterion
from utils.training.mask_loss import MaskCriterion
from utils.training.precision import Precision
from utils.training.recipe import choose_accumulation, choose_recipe, resolve


def gradients(model: nn.Module, criterion, sizes: list[int], *, weighted: bool) -> tuple[list, float]:
    """Return the gradients of a batch in parts of these sizes, and its loss."""
    images, masks = batch()
    parts = list(zip(images.split(sizes), masks.split(sizes), strict=True))
    total = 0.0
    model.zero_grad()
    whole = Parts(model, criterion, parts, Precision(), weighted=weighted)
    for part, labels in whole:
        loss, main = whole.criterion(model(part), labels)
        loss.backward()
        total += main.item()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], total


WEIGHTS = [0.5, 2.0, 1.0]


@pytest.mark.parametrize(("loss", "weighted"), [("ce", True), ("ce", False), ("focal", True)])
def test_parts_of_a_batch_have_the_gradients_of_the_whole(loss, weighted):
    model, criterion = network().eval(), Criterion(loss, WEIGHTS).double()
    expected, total = gradients(model, criterion, [4], weighted=weighted)
    for sizes in ([1, 3], [1, 1, 1, 1]):
        own, own_total = gradients(model, criterion, sizes, weighted=weighted)
        assert own_total == pytest.approx(total, rel=1e-6)
        for one, other in zip(own, expected, strict=True):
            assert (one - other).abs().max() < 1e-6 * other.abs().max() + 1e-12


def test_parts_of_a_batch_have_the_gradients_of_a_loss_of_sets_of_masks():
    model, one = Toy().double(), scene()
    images, masks = one["image"].double(), one["mask"].long()

    def step(size: int) -> tuple[list, float]:
        torch.manual_seed(2)  # of the points
        parts = list(zip(images.split(size), masks.split(size), strict=True))
        whole = Parts(model, MaskCriterion(points=64), parts, Precision(), weighted=False)
        model.zero_grad()
        losses = []
        for part, labels in whole:
            loss, _ = whole.criterion(model(part), labels)
            loss.backward()
            losses.append(loss.item())
        return [parameter.grad.clone() for parameter in model.parameters()], sum(losses)

    (expected, loss), (own, own_loss) = step(2), step(1)
    assert own_loss == pytest.approx(loss)
    torch.testing.assert_close(own, expected)


def test_parts_computed_twice_count_once_in_batch_norms_and_draw_the_same_dropout():
    class OfSquares(nn.Module):
        """A loss that is no mean over pixels."""

        def forward(self, outputs, masks):
            loss = outputs["logits"].square().mean().sqrt()
            return loss, loss

    model = network(dropout=0.5).train()
    once, twice = copy.deepcopy(model), copy.deepcopy(model)
    torch.manual_seed(5)
    images, _ = batch()
    outputs = torch.cat([once(part)["logits"] for part in images.split(2)])
    outputs.square().mean().sqrt().backward()
    torch.manual_seed(5)
    gradients(twice, OfSquares(), [2, 2], weighted=False)
    torch.testing.assert_close(dict(twice.named_buffers()), dict(once.named_buffers()))
    for one, other in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_which_losses_are_means_over_pixels():
    def settings(*words):
        options = train_options(list(words))
        return resolve(options, choose_recipe(options), 10)[0]

    assert is_mean_over_pixels(settings()) and is_mean_over_pixels(settings("--LOSS_TYPE", "focal"))
    assert not is_mean_over_pixels(settings("--MODEL_TYPE", "mask2former"))
    assert settings("--CLIP_GRAD", "0.5").clip_grad == 0.5


@pytest.mark.parametrize(
    ("words", "batches", "lr", "reason"),
    [
        (["--BATCH_SIZE", "4"], 4, 0.01, "paper recipe"),
        (["--BATCH_SIZE", "16"], 1, 0.01, "paper recipe"),
        (["--BATCH_SIZE", "6"], 1, 0.00375, "paper recipe: 0.01 at batch 16, scaled to 6"),
        (["--BATCH_SIZE", "32"], 1, 0.02, "paper recipe: 0.01 at batch 16, scaled to 32"),
        (["--SCALE_LR", "on"], 1, 0.0025, "paper recipe: 0.01 at batch 16, scaled to 4"),
        (["--SCALE_LR", "on", "--ACCUMULATE", "2"], 2, 0.005, "paper recipe: 0.01 at batch 16, scaled to 8"),
        (
            ["--SCALE_LR", "off"],
            1,
            0.01,
            "paper recipe: for batch 16, not scaled to 4 (--SCALE_LR off)",
        ),
    ],
)
def test_a_recipe_knows_its_batch(words, batches, lr, reason):
    options = train_options(["--MODEL_TYPE", "pspnet", "--RECIPE", "paper", *words])
    recipe = choose_recipe(options)
    settings, decisions = resolve(options, recipe, 1000)
    assert choose_accumulation(options, recipe)[0] == batches and settings.lr == pytest.approx(lr)
    assert {name: why for name, _, why in decisions}["lr"] == reason
