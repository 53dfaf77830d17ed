"""Several processes train as one does: gradients, sums, shares of batches, whole runs, and how they fail."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nets.errors import UserError
from tests import two_processes
from tests.helpers import ROOT
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON
from utils import launch
from utils.checkpoint import read_checkpoint
from utils.data.dataset import SegmentationDataset
from utils.data.labels import Classes
from utils.data.loaders import TrainingSampler, evaluation_loader
from utils.data.samples import Sample
from utils.options import evaluate_options, predict_large_options, train_options
from utils.training.launch import processes_to_start

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "tests.two_processes", str(folder)]
    started = [subprocess.Popen([*command, str(rank)], cwd=ROOT, env=ENVIRONMENT) for rank in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", [*two_processes.LOSSES, "fsdp"])
def test_two_processes_have_the_gradients_of_one(found, kind):
    expected, loss = two_processes.gradients("ce" if kind == "fsdp" else kind, slice(0, 4), "ddp")
    for grads, own_loss in (process[kind] for process in found):
        assert own_loss == pytest.approx(loss, rel=1e-9), "each process knows the loss of the whole batch"
        assert grads.keys() == expected.keys() and "unused" not in grads
        for name, gradient in expected.items():
            assert (grads[name] - gradient).abs().max() < 1e-9 * gradient.abs().max() + 1e-12, name


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_steps_and_states_are_those_of_one_process(found, parallel):
    weights, state = two_processes.steps(slice(0, 4), "ddp")
    for own_weights, own_state in (process["steps"][parallel] for process in found):
        assert own_weights.keys() == weights.keys()
        for name, tensor in weights.items():
            torch.testing.assert_close(own_weights[name], tensor)
        for index, moments in state["state"].items():
            torch.testing.assert_close(own_state["state"][index], moments)


def test_what_processes_agree_upon(found):
    assert [process["count"] for process in found] == [2, 2]
    assert [process["leads"] for process in found] == [True, False]
    assert [process["agreed"] for process in found] == ["é0", "é0"]
    assert [process["gathered"] for process in found] == [["", "é"]] * 2
    assert all(process["averaged"].tolist() == [0.5, 0.5] for process in found)
    assert all(process["total"].tolist() == [3] for process in found)
    assert [process["validation"].item() for process in found] == [1, 2], "a validation sums nothing"


def test_every_process_gets_its_part_of_each_batch():
    whole = TrainingSampler(23, 6, seed=3).batches(2)
    parts = [TrainingSampler(23, 6, seed=3, share=(rank, 3)).batches(2) for rank in range(3)]
    assert [[key for part in batch for key in part] for batch in zip(*parts, strict=True)] == whole


def test_a_validation_shares_batches_and_none_twice():
    sizes = [32, 32, 32, 48, 48, 32, 32]
    samples = [Sample(f"{i}", Path("x"), Path("y"), size, size) for i, size in enumerate(sizes)]
    dataset = SegmentationDataset(samples, Classes(("a",), ((0, 0, 0),), {0: 0}, ()))
    shares = [evaluation_loader(dataset, 2, 0, share=(rank, 2)).batch_sampler for rank in range(2)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(7))
    assert [len(share) for share in shares] == [2, 2]


def start(*words: str) -> int:
    return processes_to_start(train_options(list(words)))


def test_how_many_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert start() == 4 and start("--MODE", "single") == 1 and start("--PARALLEL", "dp") == 1
    assert start("--GPU_LIST", "1,3") == 2 and start("--USE_CPU") == 1
    assert start("--USE_CPU", "--PROCESSES", "2") == 2
    for words, message in (
        (["--BATCH_SIZE", "6"], "--BATCH_SIZE 6 does not divide by 4 GPUs; nearest that do: 4 or 8"),
        (["--PROCESSES", "2"], "--PROCESSES 2 is given; there is one process for each of 4"),
        (["--PARALLEL", "dp", "--PROCESSES", "2"], "--PARALLEL dp is one process"),
        (["--USE_CPU", "--PROCESSES", "3"], "--BATCH_SIZE 4 does not divide by 3 processes"),
    ):
        with pytest.raises(UserError, match=message):
            start(*words)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)  # no batch is asked for where it is free
    for parse in (evaluate_options, predict_large_options):
        assert launch.processes_to_start(parse(["--WEIGHTS", "x.pth"])) == 3
        with pytest.raises(UserError, match="--BATCH_SIZE 4 does not divide by 3 GPUs"):
            launch.processes_to_start(parse(["--WEIGHTS", "x.pth", "--BATCH_SIZE", "4"]))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert start() == 1, "a launcher has started them"


def train(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run train.py as a user does."""
    command = [sys.executable, str(ROOT / "train.py"), "--DATASET_PATH", "data", *COMMON, *words]
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )


# Frozen batch norms: their statistics would be those of each process's share.
FROZEN = ["--FREEZE", "batch_norm", "--OPTIMIZER_TYPE", "sgd", "--BATCH_SIZE", "4", "--EPOCHS", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a data set of eight tiles, and the run of one process."""
    folder = tmp_path_factory.mktemp("runs")
    write_dataset(folder / "data", bands=3, size=48, tiles=8)
    done = train(folder, *FROZEN, "--RUN_NAME", "one")
    assert done.returncode == 0, done.stderr
    return folder


def same_run(folder: Path, name: str) -> None:
    """Assert that a run has the weights, losses and scores of the one-process run."""
    one, other = (read_checkpoint(folder / "pth_files" / run / "last.pth") for run in ("one", name))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, tensor in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][key], tensor, rtol=1e-3, atol=1e-5)
    for row, expected in zip(other["training"]["rows"], one["training"]["rows"], strict=True):
        for column in ("train_loss", "val_loss", "mIoU", "Acc"):
            assert row[column] == pytest.approx(expected[column], rel=2e-3), column


def test_a_run_of_two_processes_is_that_of_one(folder):
    done = train(folder, *FROZEN, "--PROCESSES", "2", "--RUN_NAME", "ddp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best mIoU") == 1 and "2 processes" in done.stdout
    assert {path.name for path in (folder / "pth_files").iterdir()} >= {"one", "ddp"}
    same_run(folder, "ddp")


def test_torchrun_starts_shards_in_parts(folder):
    """FSDP, accumulation and recomputation together still are the one-process run."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["--BATCH_SIZE", "2", "--ACCUMULATE", "2", "--GRAD_CHECKPOINT", "--PARALLEL", "fsdp"]
    command = [*launcher, str(ROOT / "train.py"), "--DATASET_PATH", "data", *COMMON, *FROZEN, *words]
    done = subprocess.run(
        [*command, "--RUN_NAME", "fsdp"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same_run(folder, "fsdp")


def test_a_process_that_fails_ends_all_with_one_line(folder):
    """The image of one process's share is damaged after the data were checked: its size is still right."""
    label = folder / "data" / "images" / "v1.tif"
    content = label.read_bytes()
    statistics = folder / "pth_files" / "one" / "statistics.json"
    assert statistics.is_file()
    label.write_bytes(content[: len(content) // 2])
    try:
        done = train(folder, *FROZEN, "--PROCESSES", "2", "--RUN_NAME", "broken")
    finally:
        label.write_bytes(content)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "train.py: " in line]
    assert len(lines) == 1 and "v1.tif" in lines[0]


def test_a_signal_to_the_launcher_saves_in_all_processes(folder):
    words = ["--PROCESSES", "2", "--SAVE_ITERS", "2", "--RUN_NAME", "stopped", *FROZEN[:-1], "500"]
    command = [sys.executable, str(ROOT / "train.py"), "--DATASET_PATH", "data", *COMMON, *words]
    last = folder / "pth_files" / "stopped" / "last.pth"
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, **pipes) as run:
        while run.poll() is None and not last.is_file():
            time.sleep(0.05)
        run.terminate()
        error = run.communicate(timeout=300)[1]
    assert run.returncode == 143, error
    line = r"stopped by SIGTERM after iteration (\d+) of 1000; go on with: .* --RESUME stopped\n"
    training, said = read_checkpoint(last)["training"], re.search(line, error)
    assert said, error
    assert training["iteration"] == int(said[1]) and not training["finished"]
