"""Scores against hand-computed cases and an independent slow loop."""

import json

import pytest
import torch

from utils.evaluation.metrics import OVERALL, ConfusionMatrix, compute_metrics


def matrix_of(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def slow_scores(predictions: list[int], masks: list[int], num_classes: int) -> dict:
    """Compute the scores pixel by pixel from the textbook definitions."""
    pairs = [(t, p) for t, p in zip(masks, predictions, strict=True) if t != -1]
    n = len(pairs)
    per_class = {}
    for k in range(num_classes):
        tp = sum(1 for t, p in pairs if t == k and p == k)
        fp = sum(1 for t, p in pairs if t != k and p == k)
        fn = sum(1 for t, p in pairs if t == k and p != k)
        if tp + fp + fn == 0:
            continue
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
        f2 = 5 * precision * recall / (4 * precision + recall) if tp else 0.0
        per_class[k] = (tp / (tp + fp + fn), precision, recall, f1, f2, (tp + fn) / n)
    agree = sum(t == p for t, p in pairs) / n
    chance = sum(
        sum(t == k for t, _ in pairs) / n * (sum(p == k for _, p in pairs) / n) for k in range(num_classes)
    )
    mean = [sum(values[i] for values in per_class.values()) / len(per_class) for i in range(5)]
    return {
        "Acc": agree,
        "Kappa": (agree - chance) / (1 - chance),
        "mIoU": mean[0],
        "FWIoU": sum(values[5] * values[0] for values in per_class.values()),
        "Precision": mean[1],
        "Recall": mean[2],
        "F1": mean[3],
        "F2": mean[4],
        "per_class": per_class,
    }


def test_hand_computed_three_classes():
    metrics = compute_metrics(matrix_of([[5, 1, 0], [2, 3, 1], [0, 0, 8]]))
    assert metrics.per_class["IoU"] == pytest.approx((5 / 8, 3 / 7, 8 / 9))
    assert metrics.per_class["Precision"] == pytest.approx((5 / 7, 3 / 4, 8 / 9))
    assert metrics.per_class["Recall"] == pytest.approx((5 / 6, 3 / 6, 1.0))
    assert metrics.per_class["F1"] == pytest.approx((10 / 13, 6 / 10, 16 / 17))
    assert metrics.per_class["F2"] == pytest.approx((25 / 31, 15 / 28, 40 / 41))
    assert metrics.Acc == pytest.approx(16 / 20)
    assert metrics.mIoU == pytest.approx((5 / 8 + 3 / 7 + 8 / 9) / 3)
    assert metrics.FWIoU == pytest.approx(0.3 * 5 / 8 + 0.3 * 3 / 7 + 0.4 * 8 / 9)
    chance = (6 * 7 + 6 * 4 + 8 * 9) / 400
    assert metrics.Kappa == pytest.approx((0.8 - chance) / (1 - chance))
    assert metrics.absent == ()
    assert metrics.pixels == (6, 6, 8)


@pytest.mark.parametrize("seed", range(5))
def test_equals_an_independent_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    num_classes = 4 + seed
    masks = torch.randint(-1, num_classes - 1, (3, 9, 7), generator=generator)  # the last class never true
    predictions = torch.randint(0, num_classes - 2, (3, 9, 7), generator=generator)
    confusion = ConfusionMatrix(num_classes)
    for image in range(3):
        confusion.update(predictions[image : image + 1], masks[image : image + 1])
    metrics = confusion.compute()
    expected = slow_scores(predictions.flatten().tolist(), masks.flatten().tolist(), num_classes)
    for name in OVERALL:
        assert getattr(metrics, name) == pytest.approx(expected[name]), name
    for index in range(num_classes):
        found = [values[index] for values in metrics.per_class.values()]
        if index in expected["per_class"]:
            assert found == pytest.approx(expected["per_class"][index][:5])
        else:
            assert found == [None] * 5
            assert index in metrics.absent
    assert num_classes - 1 in metrics.absent


def test_a_class_that_is_predicted_but_never_true_counts_as_zero():
    metrics = compute_metrics(matrix_of([[3, 1], [0, 0]]))
    assert metrics.absent == ()
    assert metrics.per_class["IoU"] == (0.75, 0.0)
    assert metrics.per_class["Precision"] == (1.0, 0.0)
    assert metrics.per_class["Recall"] == (0.75, 0.0)
    assert metrics.mIoU == 0.375
    assert metrics.FWIoU == 0.75


def test_ignored_pixels_do_not_count():
    masks = torch.tensor([[[0, 1, -1, -1]]])
    predictions = torch.tensor([[[0, 0, 1, 2]]])
    confusion = ConfusionMatrix(3)
    confusion.update(predictions, masks)
    assert confusion.matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    metrics = confusion.compute()
    assert metrics.absent == (2,)
    assert metrics.per_class["Precision"] == (0.5, 0.0, None)  # class 1 is true and never predicted
    assert metrics.mIoU == pytest.approx((0.5 + 0.0) / 2)


def test_merge_equals_the_joint_matrix():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(-1, 5, (4, 8, 8), generator=generator)
    predictions = torch.randint(0, 5, (4, 8, 8), generator=generator)
    joint, first, second = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    joint.update(predictions, masks)
    first.update(predictions[:1], masks[:1])
    second.update(predictions[1:], masks[1:])
    assert first.merge(second).matrix.equal(joint.matrix)
    assert first.compute() == joint.compute()
    with pytest.raises(ValueError, match="5 and 4 classes"):
        first.merge(ConfusionMatrix(4))


def test_update_returns_the_images_one_by_one():
    masks = torch.tensor([[[0, 1]], [[1, -1]]])
    predictions = torch.tensor([[[0, 0]], [[1, 1]]])
    counts = ConfusionMatrix(2).update(predictions, masks)
    assert counts.tolist() == [[[1, 0], [1, 0]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize(
    ("rows", "kappa"), [([[7, 0], [0, 0]], 1.0), ([[0, 7], [0, 0]], 0.0), ([[0, 5], [5, 0]], -1.0)]
)
def test_kappa_at_the_edges(rows, kappa):
    assert compute_metrics(matrix_of(rows)).Kappa == kappa


def test_kappa_of_a_scene_whose_square_exceeds_int64():
    size = 10**10
    assert compute_metrics(matrix_of([[size, 0], [0, size]])).Kappa == 1.0
    assert compute_metrics(matrix_of([[size, size], [size, size]])).Kappa == 0.0


def test_no_valid_pixel_gives_zeros():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), -1))
    metrics = confusion.compute()
    assert set(metrics.overall().values()) == {0.0}
    assert metrics.absent == (0, 1)
    assert metrics.per_class["IoU"] == (None, None)


def test_row_has_the_log_columns_in_order_and_empty_cells():
    metrics = compute_metrics(matrix_of([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    row = metrics.row(["clean ice", "碎屑", "rock"])
    assert list(row)[:8] == ["Acc", "Kappa", "mIoU", "FWIoU", "Precision", "Recall", "F1", "F2"]
    assert list(row)[8:13] == [f"{score}_clean ice" for score in ("IoU", "Precision", "Recall", "F1", "F2")]
    assert list(row)[13] == "IoU_碎屑"
    assert row["IoU_碎屑"] == pytest.approx(4 / 5)
    assert [row[key] for key in row if key.endswith("rock")] == [""] * 5
    with pytest.raises(ValueError, match="zip"):
        metrics.row(["one", "two"])


def test_to_dict_is_plain_values():
    metrics = compute_metrics(matrix_of([[3, 1], [0, 4]]))
    values = metrics.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert list(values)[:8] == list(OVERALL)
    assert all(type(value) is float for value in metrics.overall().values())


@pytest.mark.parametrize(
    ("prediction", "mask"), [(2, 0), (-1, 0), (0, 2)], ids=["high prediction", "negative prediction", "mask"]
)
def test_ids_out_of_range_are_refused(prediction, mask):
    with pytest.raises(ValueError, match="not among the 2 classes"):
        ConfusionMatrix(2).update(torch.full((1, 2, 2), prediction), torch.full((1, 2, 2), mask))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must be \(B, H, W\)"):
        ConfusionMatrix(2).update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 3).long())
