"""What tests/test_sharing.py runs in two processes: scenes of one folder, with a network in memory."""

import os
import sys
import time
import types
from pathlib import Path

import torch
from torch import distributed as dist

import evaluate
from tests.scene_helpers import Bands, large
from utils import distributed
from utils.data import samples
from utils.inference import resume
from utils.inference.results import SceneResults
from utils.program import run_program

SCENE = ("--WINDOW", "64", "--NUM_WORKERS", "0", "--OVERLAP", "0.6", "--USE_CPU")
SMALL = 64 * 64, 64  # scenes are larger than this many pixels, and judged in blocks of this side
EVERYTHING = (*SCENE, "--SCORES", "probabilities:uint8,entropy:float16,confidence", "--VECTOR", "geojson")
RESUMED = (*EVERYTHING, "--RESUME")


def evaluations(folder: Path, output: Path) -> list[list[str]]:
    """Return the words of two evaluations: of a network, and of maps."""
    common = ["--DATASET_PATH", str(folder / "data"), "--SPLIT", "val", "--WORST", "1", "--NUM_WORKERS", "0"]
    return [
        [
            "--WEIGHTS",
            "x.pth",
            *common,
            "--USE_CPU",
            "--OUTPUT",
            str(output),
            "--SHOW_DIR",
            str(output / "shown"),
        ],
        ["--PREDICTIONS", str(folder / "data/labels"), *common, "--OUTPUT", str(output / "maps")],
    ]


def use(kernel: int) -> Bands:
    """Make `load_network` return a network in memory."""
    network = Bands(kernel).eval()
    fake = types.ModuleType("Structure")
    fake.load_network = lambda path: network
    sys.modules["Structure"] = fake
    return network


def power_cut(folder: Path) -> None:
    """Begin a scene; the first process ends without a word when the second strip is complete."""
    whole = SceneResults.advance

    def advance(self: SceneResults, bottom: int) -> None:
        whole(self, bottom)
        if distributed.leads() and bottom > 300:
            while not (folder / "resumed" / "tall.strips" / "512-900.npz").exists():
                time.sleep(0.05)
            os._exit(1)

    SceneResults.advance = advance
    large(folder / "tall.tif", folder / "resumed", *RESUMED)


def predict(folder: Path) -> None:
    """Predict a scene together, go on with the one that was begun, deal out a folder, and fail."""
    network = use(5)
    for output, words in (("together", EVERYTHING), ("resumed", RESUMED)):
        network.calls.clear()
        assert large(folder / "tall.tif", folder / output, *words) == 0
        windows = sum(call[0] for call in network.calls)
        (folder / f"{output}{distributed.rank()}.txt").write_text(str(windows))
    assert large(folder / "many", folder / "dealt", *SCENE) == 2
    assert large(folder / "broken.tif", folder / "broken", *SCENE) == 2
    samples.LARGE, samples.BLOCK = SMALL
    for words in evaluations(folder, folder / "evaluated"):
        assert run_program(evaluate.main, words) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    resume.SECONDS = 0.0
    dist.init_process_group("gloo")
    if sys.argv[2] == "cut":
        use(5)
        power_cut(Path(sys.argv[1]))
    else:
        distributed.leave = distributed.meet  # the processes go on together
        predict(Path(sys.argv[1]))
        dist.destroy_process_group()
