"""What the benchmarks share: training by the program's own loop, and files of results."""

import csv
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock  # comes with torch
from torch import nn

from utils.data.dataset import SegmentationDataset
from utils.data.loaders import evaluation_loader
from utils.evaluation.evaluate import evaluate_network
from utils.evaluation.metrics import ConfusionMatrix
from utils.files import replacing
from utils.options import train_options
from utils.training.engine import train_one_epoch
from utils.training.opening import open_session
from utils.training.plan import Build
from utils.training.session import Session
from utils.training.setup import build_network

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Trained:
    """A finished run: its session and its time in seconds.

    Attributes:
        session: the run.
        seconds: on the clock, with validation and files.
        training_seconds: of training alone; on a CPU the processor's, which other work does not change.
    """

    session: Session
    seconds: float
    training_seconds: float


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Work in a temporary folder: what a run writes there is of no further use."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)


def train_run(
    words: Sequence[str], title: str, build: Build = build_network, *, validate: bool = True
) -> Trained:
    """Train as train.py does with the same flags.

    Args:
        words: flags of train.py.
        title: stands before the progress bar.
        build: (options, bands, num_classes) -> network.
        validate: whether each epoch ends as in train.py, with a validation and files.
    """
    session = open_session(train_options(list(words)), build)
    started, training_seconds = time.monotonic(), 0.0
    clock = time.process_time if session.device.type == "cpu" else time.monotonic
    while session.unfinished:
        began = clock()
        losses = train_one_epoch(session, session.iterations, f"{title}, {session.title}")
        training_seconds += clock() - began
        if not validate:
            session.close_round()
            continue
        confusion, val, _ = evaluate_network(
            session.model, session.val_loader, session.device, session.criterion
        )
        session.finish_epoch(losses, val, confusion)
    return Trained(session, time.monotonic() - started, training_seconds)


def on_test_split(session: Session, workers: int) -> ConfusionMatrix:
    """Return the confusion matrix of the network as it is on the test split."""
    dataset = SegmentationDataset(session.data.splits["test"], session.data.classes)
    loader = evaluation_loader(dataset, session.options.BATCH_SIZE, workers)
    return evaluate_network(session.model, loader, session.device)[0]


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def surroundings(device: torch.device) -> dict[str, str]:
    """Return {"device", "torch", "date"} of a result."""
    name = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {"device": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}


def read_rows(path: Path) -> list[dict]:
    """Return the rows of finished runs."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, row: dict, key: Sequence[str]) -> None:
    """Add a row, in place of one with the same `key` columns; another process may add to the file as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        rows = [other for other in read_rows(path) if not is_row(other, row, key)] + [row]
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(rows)


def is_row(row: dict, wanted: dict, key: Sequence[str]) -> bool:
    """Return whether a row, as read from a file, is the wanted one."""
    return all(row[name] == str(wanted[name]) for name in key)
