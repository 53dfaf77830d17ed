"""Runs beside each other: what is read from their folders, tables, plots and the page."""

import csv

import pytest
from PIL import Image

import compare
import train
from nets.errors import UserError
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON
from utils.checkpoint import read_checkpoint, write_checkpoint
from utils.evaluation.compare import find_runs, read_run
from utils.program import run_program


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two runs, one of which counts iterations and knows a class under another name."""
    place = tmp_path_factory.mktemp("compare")
    write_dataset(place / "data", bands=2, size=48, tiles=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = ["--DATASET_PATH", "data", *COMMON]
        assert run_program(train.main, [*words, "--EPOCHS", "2", "--RUN_NAME", "epochs"]) == 0
        assert run_program(train.main, [*words, "--MAX_ITERS", "3", "--RUN_NAME", "iters"]) == 0
    folder = place / "pth_files"
    best = read_checkpoint(folder / "iters" / "best.pth")
    best["classes"]["names"] = ["class_0", "class_1", "ice & <snow>"]
    best["metrics"]["per_class"]["IoU"][1] = None
    best["metrics"]["mIoU"] = 0.99
    write_checkpoint(folder / "iters" / "best.pth", best)
    return folder


def test_what_a_folder_says(runs):
    epochs, iters = (read_run(runs / name) for name in ("epochs", "iters"))
    assert (epochs.network, epochs.backbone, epochs.epochs, iters.epochs) == ("unet", "test_resnet", 2, 1.5)
    assert [place for place, _ in epochs.curve] == [1, 2] and [place for place, _ in iters.curve] == [1, 1.5]
    checkpoint = read_checkpoint(runs / "epochs" / "best.pth")
    from nets import create_model

    network = create_model(checkpoint["blueprint"]["name"], **checkpoint["blueprint"]["options"])
    assert epochs.parameters == sum(parameter.numel() for parameter in network.parameters())
    seconds = sum(row["seconds"] for row in read_checkpoint(runs / "epochs" / "last.pth")["training"]["rows"])
    assert epochs.speed == pytest.approx(2 * 2 * 2 / seconds) and epochs.hours == pytest.approx(
        seconds / 3600
    )


def test_tables_plots_and_page(runs, tmp_path, capsys):
    assert (
        run_program(compare.main, [str(runs), str(runs / "epochs"), "--OUTPUT", str(tmp_path / "out")]) == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["run", "network", "backbone"]
    assert [line.split()[0] for line in printed[1:3]] == ["iters", "epochs"], "the best first, none twice"
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["mIoU"] == "0.990000" and rows[1]["crop"] == "48x48" and len(rows) == 2
    with (tmp_path / "out" / "classes.csv").open(encoding="utf-8", newline="") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    assert list(classes) == ["class_0", "class_1", "ice & <snow>", "class_2"]
    assert classes["class_1"]["iters"] == "" and classes["class_1"]["difference"] == ""
    first = classes["class_0"]
    assert float(first["difference"]) == pytest.approx(
        abs(float(first["iters"]) - float(first["epochs"])), abs=2e-6
    )
    for name in ("scores", "curves", "classes"):
        assert Image.open(tmp_path / "out" / f"{name}.png").size[0] > 600
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 3 and "ice &amp; &lt;snow&gt;" in page and "http" not in page


def test_mistakes(runs, tmp_path, capsys):
    assert run_program(compare.main, []) == 2
    assert "RUN" in capsys.readouterr().err
    with pytest.raises(UserError, match="and holds none; a run has a file"):
        find_runs([tmp_path])
    (tmp_path / "best.pth").touch()
    assert find_runs([tmp_path, runs]) == [tmp_path, runs / "epochs", runs / "iters"]
    copied = tmp_path / "copied"
    copied.mkdir()
    (copied / "best.pth").write_bytes((runs / "epochs" / "best.pth").read_bytes())
    with pytest.raises(UserError, match="has no training log with a row"):
        read_run(copied)
