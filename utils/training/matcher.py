"""Which query answers for which class of an image: the assignment of least total cost.

Costs and weights are those of Cheng et al., "Masked-attention Mask Transformer for Universal Image
Segmentation" (Mask2Former), CVPR 2022, https://arxiv.org/abs/2112.01527.
Deviation: points among ignored pixels have no weight; the reference takes them for background.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from nets.layers.points import random_points, sample
from utils.data.labels import IGNORE
from utils.training.points import sample_truth

# Weights of class, mask and Dice, in the costs as in the losses.
WEIGHTS = (2.0, 5.0, 5.0)


@dataclass(frozen=True)
class Targets:
    """The objects of a batch: in each image one for every class that it shows.

    Attributes:
        masks: (B, H, W).
        classes: of each image the classes (T,) that it shows; T is 0 where every pixel is ignored.
        valid: pixels (B, H, W) that are not ignored; None where all are valid.
    """

    masks: Tensor
    classes: list[Tensor]
    valid: Tensor | None

    @classmethod
    def of(cls, masks: Tensor) -> "Targets":
        """Return the objects of masks (B, H, W)."""
        shown = [mask.unique() for mask in masks]
        valid = masks != IGNORE
        return cls(masks, [classes[classes != IGNORE] for classes in shown], None if valid.all() else valid)


@dataclass(frozen=True)
class Matches:
    """The pairs of a batch: image, query and class of each, all (N,), image by image."""

    images: Tensor
    queries: Tensor
    classes: Tensor


@torch.no_grad()
def match(
    mask_logits: Tensor,
    class_logits: Tensor,
    targets: Targets,
    count: int,
    generator: torch.Generator | None = None,
) -> Matches:
    """Assign queries to the objects of each image; what is left over on either side stays alone.

    Args:
        mask_logits: (B, Q, h, w), float32 or float64.
        class_logits: (B, Q, K+1).
        targets: the objects.
        count: points at which the masks of an image are compared.
        generator: None draws from the global random state.
    """
    costs = []
    for image, classes in enumerate(targets.classes):
        truth = targets.masks[image] == classes[:, None, None]  # (T, H, W)
        valid = None if targets.valid is None else targets.valid[image]
        points = random_points(1, count, mask_logits, generator)
        costs.append(pair_costs(mask_logits[image], class_logits[image], truth, valid, classes, points))
    return pair(costs, targets)


def pair(costs: list[Tensor], targets: Targets) -> Matches:
    """Return the cheapest pairs for the costs (Q, T) of each image."""
    pairs, first = [], 0
    for image, cost in enumerate(_to_numpy(costs)):
        queries, objects = assign(cost)
        pairs.append(np.stack([np.full_like(queries, image), queries, objects + first]))
        first += cost.shape[1]
    images, queries, objects = torch.from_numpy(np.concatenate(pairs, axis=1)).to(targets.masks.device)
    return Matches(images, queries, torch.cat(targets.classes)[objects])


def pair_costs(
    mask_logits: Tensor,
    class_logits: Tensor,
    truth: Tensor,
    valid: Tensor | None,
    classes: Tensor,
    points: Tensor,
) -> Tensor:
    """Return what it costs to let each query of an image answer for each object, (Q, T).

    Args:
        mask_logits: (Q, h, w).
        class_logits: (Q, K+1).
        truth: binary masks (T, H, W).
        valid: pixels (H, W) that are not ignored; None where all are valid.
        classes: of the objects (T,).
        points: where the masks are compared (1, P, 2).
    """
    logits = sample(mask_logits[None], points)[0]  # (Q, P)
    labels, weights = sample_truth(truth[None], None if valid is None else valid[None], points)
    return compare(
        logits, class_logits, labels[0], weights[0], classes, F.softplus(-logits), F.softplus(logits), WEIGHTS
    )


def compare(
    logits: Tensor,
    class_logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    classes: Tensor,
    inside_costs: Tensor,
    outside_costs: Tensor,
    shares: tuple[float, float, float],
) -> Tensor:
    """Return the costs (Q, T) of masks that are compared at P places.

    Args:
        logits: (Q, P).
        class_logits: (Q, K+1).
        labels: (T, P) in 0..1.
        weights: of the places (P,).
        classes: of the objects (T,).
        inside_costs: what a place costs that is inside the object (Q, P).
        outside_costs: what it costs outside (Q, P).
        shares: weights of class, mask and Dice.
    """
    inside, outside = labels * weights, (1 - labels) * weights  # (T, P)
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    by_mask = (inside_costs @ inside.T + outside_costs @ outside.T) / total
    scores = logits.sigmoid()
    sums = (scores @ weights)[:, None] + inside.sum(1)
    dice = 1 - (2 * scores @ inside.T + 1) / (sums + 1)
    by_class = -class_logits.softmax(1, dtype=logits.dtype)[:, classes]
    return shares[0] * by_class + shares[1] * by_mask + shares[2] * dice


def assign(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the cheapest one-to-one assignment in costs (Q, T).

    Costs that are not finite come last: the network is broken then, and its loss says so.
    """
    finite = np.isfinite(costs)
    worst = costs.max(initial=0, where=finite) + 1
    return linear_sum_assignment(np.where(finite, costs, worst))


def _to_numpy(matrices: list[Tensor]) -> list[np.ndarray]:
    """Return matrices on the CPU as float64, fetched at once: each transfer waits for the device."""
    flat = torch.cat([matrix.flatten() for matrix in matrices]).cpu().double().numpy()
    ends = np.cumsum([matrix.numel() for matrix in matrices])[:-1]
    return [part.reshape(m.shape) for part, m in zip(np.split(flat, ends), matrices, strict=True)]
