"""The choice of the criterion, and training by the mask loss: a toy network learns and goes on."""

import pytest
import torch

from nets.errors import UserError
from tests.engine_helpers import Toy, scene
from tests.tiny_dataset import write_dataset
from utils.evaluation.evaluate import evaluate_network
from utils.options import train_options
from utils.training import opening, recipe, setup
from utils.training.announce import decisions_table
from utils.training.criterion import Criterion, ExtraLosses, build_criterion
from utils.training.engine import Trainer, train_one_epoch
from utils.training.mask_loss import MaskCriterion
from utils.training.recipe import Recipe, resolve


def test_a_toy_network_learns_two_classes():
    torch.manual_seed(0)
    network, own = Toy(), MaskCriterion(points=400)
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    cpu = torch.device("cpu")
    before = evaluate_network(network, [scene()], cpu, own)
    assert own.training, "validation has to give the criterion's mode back"
    trainer = Trainer(
        model=network,
        batches=iter([scene()] * 80),
        criterion=own,
        optimizer=optimizer,
        scheduler=constant,
        device=cpu,
    )
    train_one_epoch(trainer, 80)
    confusion, losses, _ = evaluate_network(network, [scene()], cpu, own)
    assert before[0].compute().mIoU < 0.6 and confusion.compute().mIoU > 0.98
    assert losses["main"] < 0.25 * before[1]["main"]
    # The same layer twice, at other points.
    assert losses["total"] == pytest.approx(2 * losses["main"], rel=0.15)
    assert evaluate_network(network, [scene()], cpu, own)[1] == losses


MASK_RECIPE = {"plain": {"loss": "mask"}, "paper": {"loss": "mask"}}


def test_the_recipe_and_the_flag_choose_the_criterion():
    def built(table, *words):
        chosen = Recipe(table["plain"], dict.fromkeys(table["plain"], "test"))
        settings, _ = resolve(train_options(list(words)), chosen, 10)
        return build_criterion(settings, [1.0, 2.0])

    assert isinstance(built(MASK_RECIPE), MaskCriterion)
    assert isinstance(built({"plain": {}}), Criterion)
    assert isinstance(built({"plain": {}}, "--LOSS_TYPE", "focal"), Criterion)
    assert built(MASK_RECIPE).class_weights.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("which", ["plain", "paper"])
def test_class_presence_is_trained_where_a_network_tells_it(which):
    def extra(*words):
        options = train_options(["--RECIPE", which, *words])
        settings, decisions = resolve(options, recipe.choose_recipe(options), 10)
        criterion = build_criterion(settings, [1.0, 2.0])
        assert criterion.class_weights.tolist() == [1.0, 2.0]
        said = [line for line in decisions_table(decisions) if line.startswith("extra_losses")]
        assert len(said) == isinstance(criterion, ExtraLosses)
        return settings.extra_losses

    presence = {"class_presence": "class_presence:0.2"}
    assert extra("--MODEL_TYPE", "encnet") == extra("--MODEL_TYPE", "fastfcn") == presence
    assert extra("--MODEL_TYPE", "fastfcn", "--MODEL_OPTIONS", "head=psp") == {}
    assert extra("--MODEL_TYPE", "encnet", "--LOSS_TYPE", "ohem") == presence


def test_a_loss_that_does_not_suit_the_network_is_a_users_mistake(monkeypatch, tmp_path):
    missing = ["--DATASET_PATH", str(tmp_path), "--MODEL_TYPE", "fcn"]  # found before the data are read
    message = (
        "--LOSS_TYPE mask is given; fcn predicts a class for each pixel: use ce or focal or ohem or dice or "
        "tversky or lovasz or boundary, or leave it out"
    )
    with pytest.raises(UserError, match=message):
        opening.open_session(train_options([*missing, "--LOSS_TYPE", "mask"]))
    monkeypatch.setattr(recipe, "get_recipe", lambda family: MASK_RECIPE)
    with pytest.raises(
        UserError, match="--LOSS_TYPE ce is given; fcn predicts masks: use mask or mask_focal, or leave"
    ):
        opening.open_session(train_options([*missing, "--LOSS_TYPE", "ce"]))
    for words in ([], ["--LOSS_TYPE", "mask"]):
        assert setup.check_names(train_options([*missing, *words])) == "fcn"


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """The points come from the random state that checkpoints hold, and validations draw none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "get_recipe", lambda family: MASK_RECIPE)
    data = write_dataset(tmp_path / "data", bands=2, size=48, tiles=5)
    words = ["--DATASET_PATH", str(data), "--MODEL_TYPE", "fcn", "--BATCH_SIZE", "2", "--NUM_WORKERS", "0"]
    words += ["--USE_CPU", "--LR_SCHEDULER", "step", "--LR_STEP", "9", "--CLASS_WEIGHTS", "auto"]

    def run(*more):
        session = opening.open_session(
            train_options([*words, *more]), lambda _, bands, classes: Toy(bands, classes, queries=6)
        )
        while session.unfinished:
            train = train_one_epoch(session, session.iterations, session.title)
            confusion, val, _ = evaluate_network(
                session.model, session.val_loader, session.device, session.criterion
            )
            session.finish_epoch(train, val, confusion)
        return session

    whole = run("--EPOCHS", "3", "--RUN_NAME", "whole")
    run("--EPOCHS", "1", "--RUN_NAME", "parts")
    parts = run("--EPOCHS", "3", "--RESUME", "parts")
    assert isinstance(whole.criterion, MaskCriterion) and whole.criterion.class_weights.numel() == 3
    assert torch.equal(whole.criterion.class_weights, parts.criterion.class_weights)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)
    losses = [[(row["train_loss"], row["val_loss"]) for row in run.log.rows] for run in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 3
