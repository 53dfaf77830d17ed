"""A run that is killed or stopped anywhere, and resumed, ends with the bits of one that was not."""

import os
import signal
from pathlib import Path

import pytest

import train
from tests.resume_helpers import check_equal, start
from tests.tiny_dataset import write_dataset
from tests.training_helpers import same
from utils import files
from utils.checkpoint import read_checkpoint
from utils.program import run_program
from utils.training import session


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a data set and the finished run "whole"."""
    folder = tmp_path_factory.mktemp("runs")
    write_dataset(folder / "data", bands=2, size=64, tiles=5)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert start("whole") == 0
        yield folder
    finally:
        os.chdir(before)


def killed_before(event: int, name: str) -> None:
    """Start or resume a run in another process and kill it before the n-th of its steps and files."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    left = [event]

    def counted(function):
        def call(*args, **more):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **more)

        return call

    files.os.replace = counted(os.replace)
    session.Session.step_done = counted(session.Session.step_done)
    try:
        start(name, "--RESUME")
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that it forks; this system has no fork")
def test_a_run_killed_at_many_instants_ends_with_the_same_bits(place):
    # Before: a first step; the first save takes its place; best.pth, and last.pth, and a step of each epoch.
    for event in (3, 5, 9, 4, 8, 7):
        killed_before(event, "killed")
    assert start("killed", "--RESUME") == 0
    check_equal(place, "killed")


@pytest.mark.parametrize(
    ("number", "code", "where"),
    [(signal.SIGTERM, 143, "step_done"), (signal.SIGINT, 130, "step_done"), (signal.SIGINT, 130, "watch")],
)
def test_a_signal_saves_and_says_how_to_go_on(place, monkeypatch, capsys, number, code, where):
    original, calls = getattr(session.Session, where), []

    def signalled(self, *args):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(self, *args)

    name = f"{where}_{code}"
    monkeypatch.setattr(session.Session, where, signalled)
    assert start(name) == code
    monkeypatch.undo()
    error = capsys.readouterr().err
    what = "Ctrl-C" if code == 130 else "SIGTERM"
    after = 3 if where == "step_done" else 10
    line = f"stopped by {what} after iteration {after} of 10; go on with: python train.py --RESUME {name}\n"
    assert line in error
    assert run_program(train.main, ["--RESUME", name]) == 0
    check_equal(place, name)


def test_a_second_signal_ends_at_once_and_handlers_come_back():
    from utils.program import Stopped
    from utils.training.interrupt import StopSignals

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped at once by SIGTERM") as raised, StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.agreed() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_goes_on_with_more_epochs(place):
    assert start("longer", "--LR_SCHEDULER", "step", "--LR_STEP", "9", "--EPOCHS", "1") == 0
    assert run_program(train.main, ["--RESUME", "longer", "--EPOCHS", "2"]) == 0
    assert start("straight", "--LR_SCHEDULER", "step", "--LR_STEP", "9") == 0
    one, other = (read_checkpoint(place / "pth_files" / run / "last.pth") for run in ("longer", "straight"))
    same(one["state_dict"], other["state_dict"])
    assert len(one["training"]["rows"]) == 2
