"""What is printed and written of an evaluation, and which images are the worst."""

import pytest
import torch

from tests.evaluation_helpers import read_csv
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.report import table, text_width, write_confusion, write_images, write_metrics
from utils.evaluation.split import worst_images


def test_table_is_aligned_with_chinese_names_and_has_the_line():
    metrics = compute_metrics(torch.tensor([[50, 10, 0], [20, 30, 0], [0, 0, 0]]))
    lines = table(metrics, ["洁净冰", "rock", "absent one"]).splitlines()
    widths = [text_width(line) for line in lines[:5]]
    assert len(set(widths)) == 1, lines
    assert f"mIoU {metrics.mIoU:.4f}" in lines
    assert "mIoU 0.5625" in lines
    assert any("left out of the means: absent one" in line for line in lines)
    assert lines[2].split() == ["洁净冰", "0.6250", "0.7143", "0.8333", "0.7692", "0.8065", "60"]
    assert lines[4].split() == ["absent", "one", "-", "-", "-", "-", "-", "0"]


def test_text_width_counts_console_columns():
    assert [text_width(text) for text in ("ice", "洁净冰", "e\u0301te\u0301", "")] == [3, 6, 3, 0]


def test_csv_files(tmp_path):
    matrix = torch.tensor([[5, 1, 0], [2, 2, 0], [0, 0, 0]])
    names = ["a, b", "冰", "none"]
    metrics = compute_metrics(matrix)
    write_metrics(metrics, names, tmp_path / "metrics.csv")
    rows = read_csv(tmp_path / "metrics.csv")
    assert [row["class"] for row in rows[:3]] == names
    assert float(rows[0]["IoU"]) == pytest.approx(5 / 8) and rows[0]["pixels"] == "6"
    assert rows[2]["IoU"] == rows[2]["F2"] == ""
    overall = {row["class"]: float(row["value"]) for row in rows[3:]}
    assert overall == pytest.approx(metrics.overall(), abs=1e-6)
    write_confusion(matrix, names, tmp_path / "confusion.csv")
    text = (tmp_path / "confusion.csv").read_bytes().decode("utf-8")
    assert text.splitlines() == [
        'truth \\ prediction,"a, b",冰,none',
        '"a, b",5,1,0',
        "冰,2,2,0",
        "none,0,0,0",
    ]
    write_images(["x"], [metrics], names, tmp_path / "per_image.csv")
    (row,) = read_csv(tmp_path / "per_image.csv")
    assert row["image"] == "x" and row["pixels"] == "10" and row["IoU_none"] == ""
    assert len(list(tmp_path.iterdir())) == 3


def test_worst_images_leaves_out_those_without_truth():
    scores = [
        compute_metrics(torch.tensor(m)) for m in ([[3, 1], [0, 4]], [[0, 0], [0, 0]], [[0, 4], [4, 0]])
    ]
    assert worst_images(scores, 5) == [2, 0]
    assert worst_images(scores, 1) == [2]
    assert worst_images(scores, 0) == []
