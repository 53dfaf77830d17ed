"""Confusion matrix and the scores that follow from it.

One matrix over all pixels of a split (rows truth, columns prediction) is all that is kept; every score is
computed from it, so batches, processes and images of any size add up exactly. Of several labels there is one
for each class, whose rows and columns are absent and present.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

OVERALL = ("Acc", "Kappa", "mIoU", "FWIoU", "Precision", "Recall", "F1", "F2")
PER_CLASS = ("IoU", "Precision", "Recall", "F1", "F2")
# Of several labels: what the (2, 2) pixels of a class are, where it is present and where it is absent.
PRESENCE = ("found", "missed", "false alarm", "rightly absent")


@dataclass(frozen=True)
class Metrics:
    """Scores of one confusion matrix as plain Python values.

    mIoU, Precision, Recall, F1 and F2 are plain means over the classes that occur in truth or prediction;
    FWIoU weights the classes by their share of the true pixels. `per_class` maps each name of `PER_CLASS` to
    one value per class, None where the class is absent, that is neither in truth nor in prediction. A
    class that occurs but is never predicted (or never true) scores 0. Without a single valid pixel every
    class is absent and every mean is 0, never NaN: such a split must not look good or break a comparison.
    Of several labels Acc and Kappa are of all decisions, K at each pixel. `pixels` are a class's true ones.
    """

    Acc: float
    Kappa: float
    mIoU: float  # noqa: N815 - the field's own spelling, and the column of the log
    FWIoU: float
    Precision: float
    Recall: float
    F1: float
    F2: float
    per_class: dict[str, tuple[float | None, ...]]
    absent: tuple[int, ...]
    pixels: tuple[int, ...]

    def overall(self) -> dict[str, float]:
        """Return the scores over all classes, in the order of `OVERALL`."""
        return {name: getattr(self, name) for name in OVERALL}

    def to_dict(self) -> dict:
        """Return plain dicts, lists and numbers, fit for a checkpoint or JSON."""
        return {
            **self.overall(),
            "per_class": {name: list(values) for name, values in self.per_class.items()},
            "absent": list(self.absent),
            "pixels": list(self.pixels),
        }

    @classmethod
    def from_dict(cls, plain: dict) -> "Metrics":
        """Return the scores that `to_dict` has made plain."""
        per_class = {name: tuple(values) for name, values in plain["per_class"].items()}
        absent, pixels = tuple(plain["absent"]), tuple(plain["pixels"])
        return cls(**{**plain, "per_class": per_class, "absent": absent, "pixels": pixels})

    def row(self, class_names: tuple[str, ...] | list[str]) -> dict[str, float | str]:
        """Return the columns of the training log: the means, then `IoU_<name>`, ... class by class.

        A score of an absent class is an empty cell.
        """
        cells: dict[str, float | str] = dict(self.overall())
        for index, name in zip(range(len(self.pixels)), class_names, strict=True):
            for score in PER_CLASS:
                value = self.per_class[score][index]
                cells[f"{score}_{name}"] = "" if value is None else value
        return cells


def count_pairs(predictions: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """Map predictions and masks (B, H, W) to one confusion matrix per image, (B, K, K) int64.

    Pixels with a negative mask are ignored. Runs on the device of the tensors.

    Raises:
        ValueError: if the shapes differ or a class id is not below `num_classes`.
    """
    if predictions.shape != masks.shape or masks.dim() != 3:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and masks {tuple(masks.shape)} must be (B, H, W)"
        )
    batch, cells = masks.shape[0], num_classes * num_classes
    if masks.numel() == 0:
        return torch.zeros(batch, num_classes, num_classes, dtype=torch.int64, device=masks.device)
    valid = masks >= 0
    # a wrong id would be counted silently in another class's cell
    if bool((((predictions < 0) | (predictions >= num_classes) | (masks >= num_classes)) & valid).any()):
        raise ValueError(f"a class id in predictions or masks is not among the {num_classes} classes")
    image = torch.arange(batch, device=masks.device).view(-1, 1, 1) * cells
    pairs = image + masks.long() * num_classes + predictions.long()
    # ignored pixels fall into one cell past the end: no boolean indexing, whose size a GPU must wait for
    pairs = torch.where(valid, pairs, batch * cells)
    counts = torch.bincount(pairs.flatten(), minlength=batch * cells + 1)[:-1]
    return counts.view(batch, num_classes, num_classes)


def count_presence(predictions: Tensor, masks: Tensor) -> Tensor:
    """Map predictions and masks (B, K, H, W) of 0 and 1 to matrices per image and class (B, K, 2, 2)."""
    if masks.dim() != 4:
        raise ValueError(f"masks {tuple(masks.shape)} of several labels must be (B, K, H, W)")
    planes = [tensor.flatten(0, 1) for tensor in (predictions, masks)]
    return count_pairs(*planes, 2).view(*masks.shape[:2], 2, 2)


class ConfusionMatrix:
    """Pixel counts of (truth, prediction) pairs, added up batch by batch in constant memory.

    Attributes:
        matrix: (K, K) int64, rows truth, columns prediction, on the device of the latest update; of several
            labels (K, 2, 2).
    """

    def __init__(self, num_classes: int, task: str = "multiclass"):
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; at least 1")
        self.num_classes = num_classes
        shape = (num_classes, 2, 2) if task == "multilabel" else (num_classes, num_classes)
        self.matrix = torch.zeros(shape, dtype=torch.int64)

    @classmethod
    def of(cls, matrix: Tensor) -> "ConfusionMatrix":
        """Return one with these counts."""
        confusion = cls(len(matrix))
        confusion.matrix = matrix
        return confusion

    def update(self, predictions: Tensor, masks: Tensor) -> Tensor:
        """Add a batch, masks negative where ignored; return the matrix of each image, (B, *matrix.shape).

        Both are (B, H, W) or, of several labels, (B, K, H, W).
        """
        if self.matrix.dim() == 3:
            counts = count_presence(predictions, masks)
        else:
            counts = count_pairs(predictions, masks, self.num_classes)
        self.matrix = self.matrix.to(counts.device) + counts.sum(0)
        return counts

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add the counts of another matrix of the same classes and return self."""
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"matrices of {self.num_classes} and {other.num_classes} classes cannot be merged"
            )
        self.matrix = self.matrix + other.matrix.to(self.matrix.device)
        return self

    def compute(self) -> Metrics:
        """Return the scores of all pixels so far."""
        return compute_metrics(self.matrix)


def compute_metrics(matrix: Tensor) -> Metrics:
    """Return the scores of one (K, K) confusion matrix, rows truth, columns prediction, or of (K, 2, 2)."""
    matrix = matrix.cpu()
    if matrix.dim() == 3:
        hits, truth, predicted = (
            part.tolist() for part in (matrix[:, 1, 1], matrix[:, 1].sum(1), matrix[..., 1].sum(1))
        )
        matrix = matrix.sum(0)
    else:
        hits = matrix.diagonal().tolist()
        truth, predicted = matrix.sum(1).tolist(), matrix.sum(0).tolist()
    present = [index for index in range(len(hits)) if truth[index] or predicted[index]]

    def fill(score: dict[int, float]) -> tuple[float | None, ...]:
        return tuple(score.get(index) for index in range(len(hits)))

    iou = {i: hits[i] / (truth[i] + predicted[i] - hits[i]) for i in present}
    scores = {
        "IoU": iou,
        "Precision": {i: _ratio(hits[i], predicted[i]) for i in present},
        "Recall": {i: _ratio(hits[i], truth[i]) for i in present},
        # F_b = (1 + b^2) hits / (b^2 truth + predicted), which needs no precision or recall that is 0/0
        "F1": {i: 2 * hits[i] / (truth[i] + predicted[i]) for i in present},
        "F2": {i: 5 * hits[i] / (4 * truth[i] + predicted[i]) for i in present},
    }
    means = {name: _ratio(sum(score.values()), len(present)) for name, score in scores.items()}
    right, rows, columns = int(matrix.trace()), matrix.sum(1).tolist(), matrix.sum(0).tolist()
    return Metrics(
        Acc=_ratio(right, sum(rows)),
        Kappa=_kappa(right, rows, columns),
        mIoU=means["IoU"],
        FWIoU=_ratio(sum(truth[i] * iou[i] for i in present), sum(truth)),
        Precision=means["Precision"],
        Recall=means["Recall"],
        F1=means["F1"],
        F2=means["F2"],
        per_class={name: fill(score) for name, score in scores.items()},
        absent=tuple(index for index in range(len(hits)) if index not in iou),
        pixels=tuple(truth),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _kappa(hits: int, truth: list[int], predicted: list[int]) -> float:
    """Return Cohen's kappa; 1 where chance alone agrees everywhere (one class in both, so all is right)."""
    total = sum(truth)
    # whole numbers, so that an expected agreement of 1 is met exactly and large scenes lose no digit
    chance = sum(a * b for a, b in zip(truth, predicted, strict=True))
    if total and chance == total * total:
        return 1.0
    return _ratio(total * hits - chance, total * total - chance)
