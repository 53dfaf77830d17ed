"""Several processes predict scenes as one does: shared by strips, dealt out, interrupted, damaged."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from tests.helpers import ROOT
from tests.scene_helpers import Bands, blobs, large, names, use, write_scene
from tests.scene_processes import EVERYTHING, SCENE, SMALL, evaluations
from tests.tiny_dataset import write_dataset
from utils.data import samples
from utils.inference.inputs import Job
from utils.inference.sharing import deal
from utils.inference.strips import divide
from utils.inference.windows import WindowGrid
from utils.program import run_program


def run_two(folder: Path, what: str) -> tuple[list[int], list[str]]:
    """Run both processes and return their exit codes and what they said to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(2):
        number = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.scene_processes", str(folder), what]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **number}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    ends = [process.communicate(timeout=300) for process in started]
    return [process.returncode for process in started], ["".join(end) for end in ends]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what two processes have made of its scenes; `resumed` was interrupted once."""
    folder = tmp_path_factory.mktemp("scenes")
    image = blobs(900, 150)
    image[:, 500:520] = 0
    write_scene(folder / "tall.tif", image, nodata=0)
    (folder / "many").mkdir()
    for name, height in (("a", 90), ("b", 200), ("c", 70), ("damaged", 150)):
        write_scene(folder / "many" / f"{name}.tif", blobs(height, 80))
    write_scene(folder / "broken.tif", image)
    for path in (folder / "broken.tif", folder / "many" / "damaged.tif"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    write_dataset(folder / "data", size=100)
    codes, said = run_two(folder, "cut")
    assert 0 not in codes, said
    assert sorted(names(folder / "resumed")) == [
        *("tall.resume.json", "tall.strips", "tall.tif.part"),
        *(f"tall_{kind}.tif.part" for kind in ("confidence", "entropy", "scores")),
    ]
    codes, said = run_two(folder, "predict")
    assert codes == [0, 0], said
    (folder / "said.txt").write_text(said[0])
    return folder


def same_results(one: Path, other: Path) -> None:
    """Assert that two folders hold the same results."""
    assert names(one) == names(other)
    for name in names(one):
        if name.endswith(".png"):
            assert np.array_equal(Image.open(one / name), Image.open(other / name)), name
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_shared_scene_is_that_of_one_process(folder, tmp_path, monkeypatch):
    network = use(monkeypatch, Bands(5))
    assert large(folder / "tall.tif", tmp_path, *EVERYTHING) == 0
    same_results(folder / "together", tmp_path)
    windows = [int((folder / f"together{rank}.txt").read_text()) for rank in range(2)]
    alone = sum(call[0] for call in network.calls)
    assert max(windows) < 0.65 * alone and alone <= sum(windows) < 1.2 * alone


def test_an_interrupted_shared_scene_is_gone_on_with(folder):
    same_results(folder / "resumed", folder / "together")
    windows = [
        [int((folder / f"{name}{rank}.txt").read_text()) for rank in range(2)]
        for name in ("together", "resumed")
    ]
    assert windows[1][1] == 0, "its strip was complete"
    assert 0 < windows[1][0] < 0.7 * windows[0][0]


def test_scenes_of_a_folder_are_dealt_out(folder, tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands(5))
    assert large(folder / "many", tmp_path, *SCENE) == 2
    same_results(folder / "dealt", tmp_path)
    alone, said = capsys.readouterr(), (folder / "said.txt").read_text()
    shares = alone.out.split("share of")[1].split("results are in")[0]
    assert "3 images" in shares and shares in said
    assert "damaged.tif" in alone.err.splitlines()[-1]
    assert f"{alone.err.splitlines()[-1].split(': ', 1)[1]}; the others" not in said
    assert said.count("damaged.tif cannot be read") >= 1


def test_a_damaged_strip_leaves_nothing(folder):
    assert names(folder / "broken") == []
    said = (folder / "said.txt").read_text()
    assert "broken.tif cannot be read, it may be damaged" in said and "Traceback" not in said


def test_images_of_a_split_are_shared(folder, tmp_path, monkeypatch):
    use(monkeypatch, Bands(5))
    monkeypatch.setattr(samples, "LARGE", SMALL[0])
    monkeypatch.setattr(samples, "BLOCK", SMALL[1])
    for words in evaluations(folder, tmp_path):
        assert run_program(evaluate.main, words) == 0
    for part in (".", "maps", "shown"):
        assert names(folder / "evaluated" / part) == names(tmp_path / part)
    assert len(names(tmp_path / "shown")) == 8, "two scenes of four blocks each"
    tables = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.csv"))
    assert len(tables) == 8
    for table in tables:
        assert (folder / "evaluated" / table).read_text() == (tmp_path / table).read_text(), table
    rows = list(csv.DictReader((tmp_path / "per_scene.csv").open()))
    assert [row["scene"] for row in rows] == ["v0", "v1"]
    blocks = list(csv.DictReader((tmp_path / "per_image.csv").open()))
    counted = [
        sum(int(row["pixels"]) for row in blocks if row["image"].startswith(name)) for name in ("v0", "v1")
    ]
    assert [int(row["pixels"]) for row in rows] == counted == [10_000, 10_000]
    assert 0 < float(rows[0]["Kappa"]) + 1 < 2
    perfect = list(csv.DictReader((tmp_path / "maps" / "per_scene.csv").open()))
    assert [row["mIoU"] for row in perfect] == ["1.000000", "1.000000"]


def test_strips_meet_at_tiles():
    assert divide(900, 2) == [range(512), range(512, 900)]
    assert divide(300, 8) == [range(256), range(256, 300)]
    assert divide(100, 2) == [range(100)]
    assert [len(strip) for strip in divide(8192, 8)] == [1024] * 8


def test_the_windows_of_a_strip():
    grid = WindowGrid.cover(900, 64, 64, 0.5)
    assert grid.rows(0, 900) == range(len(grid.tops)) and len(grid.rows(512, 512)) == 0
    rows = grid.rows(512, 600)
    assert grid.tops[rows.start - 1] + 64 <= 512 < grid.tops[rows.start] + 64
    assert grid.tops[rows.stop - 1] < 600 <= grid.tops[rows.stop]


def test_the_largest_scenes_are_dealt_first():
    class Info:
        width = 1

        def __init__(self, height: int) -> None:
            self.height = height

    jobs = [Job(Info(height), Path(), f"{height}") for height in (5, 9, 1, 6, 3)]
    assert [[job.name for job in hand] for hand in deal(jobs, 2)] == [["9", "3"], ["6", "5", "1"]]
