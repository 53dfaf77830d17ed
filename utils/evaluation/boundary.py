"""Boundary IoU: how well the outlines of the classes agree.

Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021, https://arxiv.org/abs/2103.16562. For each class the IoU is taken over the pixels that
lie in the class and within d of its border, in truth and in prediction, with d = 2 % of the image's diagonal.
The border of the image counts as a border, as in the authors' code. Pixels are added up over all images, as
for the IoU. The border to ignored pixels does not count: where it runs is the annotator's choice.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DILATION = 0.02  # of the diagonal


class BoundaryIoU:
    """Pixels of the outlines of each class, added up image by image.

    Attributes:
        hits: (K,) pixels of the outline in truth and in prediction.
        union: (K,) pixels of the outline in truth or in prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.hits = torch.zeros(num_classes, dtype=torch.int64)
        self.union = torch.zeros(num_classes, dtype=torch.int64)

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Add a batch, (B, H, W) or (B, K, H, W) each, masks negative where ignored."""
        distance = boundary_width(*masks.shape[-2:])
        for index in range(len(self.hits)):
            own = (masks, predictions, index)
            if masks.dim() == 4:  # several labels
                own = (masks[:, index], predictions[:, index], 1)
            mask, prediction, value = own
            ignored = mask < 0
            truth = _outline(mask == value, ignored, distance)
            found = _outline((prediction == value) & ~ignored, ignored, distance)
            self.hits[index] += int((truth & found).sum())
            self.union[index] += int((truth | found).sum())

    def compute(self) -> tuple[float, tuple[float | None, ...]]:
        """Return the mean over the classes that occur, and each class's value, None where it is absent."""
        pairs = zip(self.hits.tolist(), self.union.tolist(), strict=True)
        values = tuple(hits / union if union else None for hits, union in pairs)
        present = [value for value in values if value is not None]
        return (sum(present) / len(present) if present else 0.0), values


def boundary_width(height: int, width: int) -> int:
    """Return the distance d in pixels, at least one."""
    return max(1, round(DILATION * math.hypot(height, width)))


def _outline(inside: Tensor, ignored: Tensor, distance: int) -> Tensor:
    """Return the pixels `inside` (B, H, W) within `distance` of what is neither inside nor ignored."""
    if not bool(inside.any()):
        return inside
    outside = (~(inside | ignored)).float()[:, None]
    outside = F.pad(outside, (1, 1, 1, 1), value=1.0)  # beyond the image
    size = 2 * distance + 1
    rows = F.max_pool2d(outside, (size, 1), 1, (distance, 0))  # a square is two lines: much less work
    near = F.max_pool2d(rows, (1, size), 1, (0, distance))[:, 0, 1:-1, 1:-1] > 0
    return inside & near
