"""A run that is killed at random instants, and resumed each time, beside the same run left alone.

The program is started as a user starts it and killed with SIGKILL after random times, as often as asked; then
it runs to its end. What is compared are the bits of weights, moving average, optimiser and random states, and
the rows of the log.

    python benchmarks/resume_kills.py --KILLS 20
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, add_row, surroundings  # noqa: E402
from utils.checkpoint import read_checkpoint  # noqa: E402

RUN = [
    *("--DATASET_PATH", "data", "--USE_CPU", "--NUM_WORKERS", "1", "--MODEL_TYPE", "unet"),
    *("--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8,dropout=0.2"),
    *("--BATCH_SIZE", "2", "--AUGMENT", "strong", "--EMA", "0.95", "--SAVE_ITERS", "3"),
]


def main() -> None:
    """Run, kill, resume, compare and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--KILLS", type=int, default=20, help="how often the run is killed")
    parser.add_argument("--EPOCHS", type=int, default=60, help="length of the run")
    parser.add_argument("--SEED", type=int, default=0, help="seed of the instants")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        demo = [sys.executable, str(ROOT / "tools" / "make_demo_dataset.py"), "--OUTPUT", "data"]
        demo += ["--TILE", "64", "--TRAIN_TILES", "12", "--VAL_TILES", "2", "--SCENE_SIZE", "256,256"]
        subprocess.run(demo, cwd=place, check=True, stdout=subprocess.DEVNULL)
        words = [*RUN, "--EPOCHS", str(options.EPOCHS)]
        alone = start(place, [*words, "--RUN_NAME", "alone"])
        assert alone.wait() == 0
        kills = run_with_kills(place, words, options)
        same = equal(*(outcome(place / "pth_files" / name) for name in ("alone", "killed")))
    row = {"kills": len(kills), "iterations_at_kills": " ".join(map(str, kills)), "equal": same}
    print(row)
    add_row(RESULTS / "resume_kills.csv", {**row, **surroundings(torch.device("cpu"))}, ["kills", "date"])
    sys.exit(0 if same else 1)


def start(place: Path, words: list[str]) -> subprocess.Popen:
    """Start train.py in a folder, in a group of processes of its own."""
    command = [sys.executable, str(ROOT / "train.py"), *words]
    with (place / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=place, stdout=log, stderr=log, start_new_session=True)


def run_with_kills(place: Path, words: list[str], options: argparse.Namespace) -> list[int]:
    """Kill a run at random instants, let it end, and return the iterations saved at each kill."""
    chance, kills, last = random.Random(options.SEED), [], place / "pth_files" / "killed" / "last.pth"
    command = [*words, "--RUN_NAME", "killed", "--RESUME"]
    while len(kills) < options.KILLS:
        process = start(place, command)
        saved = last.stat().st_mtime if last.is_file() else 0.0
        # Most of a start is imports, where there is nothing to break: wait until the run has written once.
        while process.poll() is None and (not last.is_file() or last.stat().st_mtime == saved):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is not None:
            raise SystemExit(f"the run ended after {len(kills)} kills; give it more --EPOCHS")
        os.killpg(process.pid, 9)
        process.wait()
        kills.append(read_checkpoint(last)["training"]["iteration"])
        print(f"kill {len(kills)}: going on from iteration {kills[-1]}", flush=True)
    assert start(place, command).wait() == 0
    return kills


def outcome(folder: Path) -> dict:
    """Return everything of a finished run that must not depend on how often it was interrupted."""
    checkpoint = read_checkpoint(folder / "last.pth")
    training = checkpoint["training"]
    with next(folder.glob("*_training_log.csv")).open(encoding="utf-8", newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    names = ("iteration", "best", "optimizer", "scheduler", "ema", "random")
    return {
        "weights": checkpoint["state_dict"],
        "best weights": read_checkpoint(folder / "best.pth")["state_dict"],
        "rows": rows,
        **{name: training[name] for name in names},
    }


def equal(one: object, other: object) -> bool:
    """Return whether nested values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


if __name__ == "__main__":
    main()
