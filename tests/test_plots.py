"""Pictures of numbers: they appear whole, warn of nothing, and show what they should."""

import csv
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from utils.evaluation import plots
from utils.evaluation.plots import draw_confusion, draw_curves, legible, save


@pytest.fixture(autouse=True)
def _no_warnings():
    """Turn warnings (missing glyphs, unknown fonts, all-NaN panels) into failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("classes", [1, 2, 20, 30])
def test_confusion_of_any_number_of_classes(classes, tmp_path):
    matrix = torch.eye(classes, dtype=torch.int64) * 5
    draw_confusion(matrix, [f"class number {i}" for i in range(classes)], tmp_path / "confusion.png")
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]
    assert min(pixels(tmp_path / "confusion.png").shape[:2]) > 300


def test_confusion_is_normalised_per_row(tmp_path):
    names = ["a", "b"]
    draw_confusion(torch.tensor([[8, 2], [0, 10]]), names, tmp_path / "counts.png")
    draw_confusion(torch.tensor([[800, 200], [0, 1]]), names, tmp_path / "more.png")
    draw_confusion(torch.tensor([[2, 8], [0, 10]]), names, tmp_path / "other.png")
    assert np.array_equal(pixels(tmp_path / "counts.png"), pixels(tmp_path / "more.png"))
    assert not np.array_equal(pixels(tmp_path / "counts.png"), pixels(tmp_path / "other.png"))


def test_numbers_are_printed_up_to_twenty_classes(tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(plots, "_print_shares", lambda axes, shares, cell: printed.append(len(shares)))
    for classes in (20, 21):
        draw_confusion(torch.eye(classes), [str(i) for i in range(classes)], tmp_path / "c.png")
    assert printed == [20]


def test_a_small_share_is_not_shown_as_none(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda self, x, y, text, **_: texts.append(text))
    draw_confusion(torch.tensor([[100_000, 1], [0, 7]]), ["a", "b"], tmp_path / "c.png")
    assert texts == [">99.9", "<0.1", "0", "100"]


def test_class_without_true_pixels_and_awkward_names(tmp_path):
    matrix = torch.tensor([[4, 1, 0], [0, 0, 0], [1, 0, 3]])
    draw_confusion(
        matrix, ["水体", "$x$ and $y$", "a name much too long to stand beside a row"], tmp_path / "c.png"
    )
    assert (tmp_path / "c.png").exists()


def test_legible_names(monkeypatch):
    monkeypatch.setattr(plots, "_drawable", lambda: frozenset(range(0x20, 0x17F)))
    assert legible(["ice", "冰川", "", "été"]) == ["ice", "class 1", "class 2", "été"]
    assert legible(["x" * 40])[0] == "x" * 27 + "…"
    assert legible(["a $b$"]) == [r"a \$b\$"]
    monkeypatch.setattr(plots, "_drawable", lambda: frozenset(map(ord, "冰川")))
    assert legible(["冰川"]) == ["冰川"]


def log_rows(epochs: int) -> list[dict]:
    return [
        {
            "epoch": e,
            "lr": 1e-3 / e,
            "train_loss": 1 / e,
            "val_loss": 1.2 / e,
            "mIoU": 0.5,
            "F1": 0.6,
            "Acc": 0.7,
        }
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_curves_of_any_length(epochs, tmp_path):
    draw_curves(log_rows(epochs), tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    height, width = pixels(tmp_path / "curves.png").shape[:2]
    assert width > 1500 and height > 400


def test_curves_read_the_csv_with_gaps(tmp_path):
    rows = log_rows(3)
    rows[1]["val_loss"], rows[2]["mIoU"] = "", "nan"
    with (tmp_path / "log.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with (tmp_path / "log.csv").open(newline="") as stream:
        draw_curves(list(csv.DictReader(stream)), tmp_path / "text.png")
    draw_curves(rows, tmp_path / "numbers.png")
    assert np.array_equal(pixels(tmp_path / "text.png"), pixels(tmp_path / "numbers.png"))


def test_curves_without_any_validation(tmp_path):
    rows = [{"epoch": 1, "lr": 0.1, "train_loss": 1.0}, {"epoch": 2, "lr": 0.1, "train_loss": 0.5}]
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    class Broken(Figure):
        def savefig(self, path, **_):
            path.write_bytes(b"half")
            raise RuntimeError("disk full")

    (tmp_path / "c.png").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk full"):
        save(Broken(), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
