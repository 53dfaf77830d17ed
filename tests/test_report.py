"""What a run leaves to look at: sheets of samples, trackers, and a page that needs nothing but itself."""

import re
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import train
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON, rows
from utils.program import run_program
from utils.training import trackers

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run whose class names need care in HTML."""
    place = tmp_path_factory.mktemp("report")
    write_dataset(place / "data", bands=2, size=48, tiles=5)
    (place / "data" / "classes.json").write_text('{"names": ["ice & <snow>", "rock", "water"]}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = ["--DATASET_PATH", "data", *COMMON, "--EPOCHS", "2", "--RUN_NAME", "run"]
        assert run_program(train.main, words) == 0
    return place / "pth_files" / "run"


def test_the_same_images_are_drawn_each_epoch(folder):
    sheets = sorted((folder / "samples").iterdir())
    assert [path.name for path in sheets] == ["epoch_00001.png", "epoch_00002.png"]
    first, second = (np.asarray(Image.open(path)) for path in sheets)
    assert first.shape == (16 + 2 * 52, 3 * 52, 3) == second.shape
    assert (first[:, :104] == second[:, :104]).all(), "images and truth stay the same"
    truth = first[16:64, 52:100].reshape(-1, 3)
    assert len(np.unique(truth, axis=0)) == 3


def test_the_page_holds_everything(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5  # curves, confusion, best, worst, sheet
    links = re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|@import|<script|https?://', page)
    assert not links, "the page asks for nothing from outside"
    assert "ice &amp; &lt;snow&gt;" in page and "<snow>" not in page
    best = max(float(row["mIoU"]) for row in rows(folder))
    for text in (
        f"<dd>{best:.4f}</dd>",
        "plain recipe",
        "--BATCH_SIZE",
        "Worst images",
        "Environment",
        "v0:",
    ):
        assert text in page, text


def test_a_browser_shows_the_page(folder, tmp_path):
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs chromium, which is not installed here")
    picture = tmp_path / "page.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2400"]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [*command, (folder / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, "the browser complains about the page"
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000, "the pictures are shown"


def run(place, *words: str) -> int:
    return run_program(train.main, ["--DATASET_PATH", str(place / "data"), *COMMON, *words])


def test_trackers_get_each_row_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", bands=2, size=48, tiles=5)
    seen, sent = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            seen.append(purge_step)

        def add_scalar(self, name, value, step):
            seen.append((name, step))

        def flush(self):
            pass

        def close(self):
            seen.append("closed")

    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer
    online = ModuleType("wandb")
    online.init = lambda **more: (
        sent.append(more["id"])
        or SimpleNamespace(log=lambda values, step: sent.append(step), finish=lambda: sent.append("closed"))
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", online)
    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    words = ["--RUN_NAME", "run", "--TENSORBOARD", "--WANDB"]
    assert run(tmp_path, *words) == 0
    assert run_program(train.main, ["--RESUME", "run", "--EPOCHS", "2"]) == 0
    assert [
        step for name, step in (pair for pair in seen if isinstance(pair, tuple)) if name == "run/mIoU"
    ] == [1, 2]
    assert seen[0] is None and 2 in seen and seen[-1] == "closed"
    assert ("loss/val_loss", 1) in seen and ("classes/IoU_class_0", 2) in seen
    assert sent == [sent[0], 1, "closed", sent[0], 2, "closed"]


@pytest.mark.parametrize("flag", ["TENSORBOARD", "WANDB"])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert run(tmp_path, f"--{flag}") == 2
    assert (
        f"--{flag} is given; it needs another package: pip install {flag.lower()}" in capsys.readouterr().err
    )
