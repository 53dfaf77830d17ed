"""Several processes train as one does: gradients, sums, shares of batches, whole runs, and how they fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nets.errors import UserError
from tests import two_processes
from tests.helpers import ROOT
from tests.test_train import COMMON
from utils.data.dataset import SegmentationDataset, TrainingSampler, evaluation_loader
from utils.data.labels import Classes
from utils.data.samples import Sample
from utils.loss_terms import PER_PIXEL
from utils.options import train_options
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


@pytest.mark.parametrize("kind", [*PER_PIXEL, "fsdp"])
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
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert start() == 1, "a launcher has started them"


def train(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run train.py as a user does, on a network without batch norm."""
    network = ["--MODEL_TYPE", "segformer", "--BACKBONE_TYPE", "b0", "--MODEL_OPTIONS", "channels=16"]
    command = [sys.executable, str(ROOT / "train.py"), "--DATASET_PATH", "data", *COMMON, *network, *words]
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
