"""How a run is validated, when it stops early, and what it does with losses that are no numbers."""

import math

import pytest
import torch

import train
from nets.errors import UserError
from tests.engine_helpers import network, trainer
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON, rows
from utils.checkpoint import read_checkpoint
from utils.options import train_options
from utils.program import run_program
from utils.training.engine import train_one_epoch
from utils.training.finite import FiniteSteps
from utils.training.patience import check_patience, without_progress

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path / "data", bands=2, size=48, tiles=5)


def run(*words: str) -> int:
    return run_program(train.main, ["--DATASET_PATH", "data", *COMMON, "--RUN_NAME", "run", *words])


def test_intervals_and_windows_of_validations(data, tmp_path):
    folder = tmp_path / "pth_files" / "run"
    assert run("--EPOCHS", "3", "--VAL_INTERVAL", "2", "--VAL_WINDOW", "32", "--MODEL_SAVE_EPOCHS", "2") == 0
    log = rows(folder)
    assert [row["epoch"] for row in log] == ["2", "3"]
    assert all(row["val_loss"] == "" and float(row["mIoU"]) > 0 for row in log), "windows have no loss"
    assert sorted(path.name.split("-loss")[0] for path in folder.glob("unet-*")) == [
        "unet-epoch2",
        "unet-epoch3",
    ]
    assert run("--MAX_ITERS", "7", "--VAL_INTERVAL", "3", "--RUN_NAME", "iters") == 0
    assert [row["iter"] for row in rows(tmp_path / "pth_files" / "iters")] == ["3", "6", "7"]


def test_windows_of_the_whole_image_validate_as_the_whole_image(data, tmp_path):
    for name, words in (("whole", []), ("windows", ["--VAL_WINDOW", "48"])):
        assert run("--RUN_NAME", name, *words) == 0
    whole, windows = (rows(tmp_path / "pth_files" / name)[0] for name in ("whole", "windows"))
    assert whole["mIoU"] == windows["mIoU"] and whole["val_loss"] != ""


def test_a_run_without_progress_stops_early(data, tmp_path, capsys):
    words = ["--EPOCHS", "6", "--PATIENCE", "2,lr", "--LR_SCHEDULER", "step", "--LR_STEP", "99"]
    assert run(*words) == 0
    assert "stopped at epoch 3: lr was not better in 2 validation(s)" in capsys.readouterr().out
    folder = tmp_path / "pth_files" / "run"
    assert len(rows(folder)) == 3 and (folder / "curves.png").is_file()
    assert read_checkpoint(folder / "last.pth")["training"]["finished"]
    assert run_program(train.main, ["--RESUME", "run", "--PATIENCE", "3,lr"]) == 0
    assert len(rows(folder)) == 4


def test_progress_of_a_column():
    log = [
        {"mIoU": score, "val_loss": loss} for score, loss in ((0.1, 3), (0.5, 2), (0.5, ""), (0.4, math.nan))
    ]
    assert without_progress(log, "mIoU") == 2 and without_progress(log, "val_loss") == 2
    assert without_progress(log[:2], "mIoU") == 0 and without_progress([], "mIoU") == 0
    check_patience(None, ["mIoU"])
    with pytest.raises(UserError, match="the log has no column 'mIou'; nearest: mIoU"):
        check_patience((3, "mIou"), ["mIoU", "Acc"])
    assert train_options(["--PATIENCE", "4"]).PATIENCE == (4, "mIoU")
    for word in ("0", "few", "1.5,mIoU"):
        with pytest.raises(UserError, match="a number of validations is wanted"):
            train_options(["--PATIENCE", word])


class Sometimes(torch.nn.Module):
    """A loss that is no number, or has no gradient that is one, in some of its calls."""

    def __init__(self, *bad: int):
        super().__init__()
        self.bad, self.calls = bad, 0

    def forward(self, outputs, masks):
        self.calls += 1
        loss = outputs["logits"].square().mean()
        if self.calls in self.bad:
            loss = loss * math.nan if self.calls % 2 else loss + (0 * loss).sqrt()  # the slope of a root at 0
        return loss, loss


def test_steps_that_are_not_finite_change_nothing():
    model = network().float()
    run = trainer(model)
    run.criterion = Sometimes(1, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert math.isnan(train_one_epoch(run, 2)["main"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert run.finite.in_a_row == 2 and not run.optimizer.state
    assert train_one_epoch(run, 1)["main"] > 0
    assert run.finite.in_a_row == 0 and run.finite.left_out == 2
    assert not torch.equal(model.state_dict()["classifier.weight"], before["classifier.weight"])


def test_an_overflow_of_a_scaled_loss_is_not_counted():
    steps, one, infinite = FiniteSteps(2), torch.tensor(1.0), torch.tensor(math.inf)
    assert not steps.accept(one, infinite, scaled=True) and steps.in_a_row == 0
    assert not steps.accept(one, infinite) and not steps.accept(infinite, one, scaled=True)
    assert steps.exhausted and steps.accept(one, one) and not steps.exhausted


def test_a_run_whose_loss_stays_infinite_ends_with_the_files_and_keeps_its_checkpoint(
    data, tmp_path, capsys, monkeypatch
):
    from utils.training.criterion import Criterion

    forward, calls = Criterion.forward, []

    def broken(self, outputs, masks):
        calls.append(torch.is_grad_enabled())
        total, main = forward(self, outputs, masks)
        return (total * math.nan, main) if sum(calls) > 3 else (total, main)

    monkeypatch.setattr(Criterion, "forward", broken)
    assert run("--EPOCHS", "9", "--NAN_PATIENCE", "4", "--OPTIMIZER_TYPE", "sgd") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "loss or gradient was not finite in 4 steps in a row (learning rate" in error
    names = error.split("latest images: ")[1].split(" (")[0].split(", ")
    assert len(names) == 2 and all(name.startswith("data/images/t") for name in names)
    last = tmp_path / "pth_files" / "run" / "last.pth"
    assert "last.pth holds the run as it was before" in error
    assert read_checkpoint(last)["training"]["iteration"] == 2, "the second epoch ended with a bad step"
