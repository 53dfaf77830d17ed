"""Points at which the losses of mask networks look at masks, and what they find there.

A point is (x, y) as fractions of the image's width and height (see `nets.layers.points`).
"""

import torch
from torch import Tensor

from nets.layers.points import choose_points, sample


def sample_truth(truth: Tensor, valid: Tensor | None, points: Tensor) -> tuple[Tensor, Tensor]:
    """Map binary masks (N, C, H, W) and points (N, P, 2) to labels (N, C, P) in 0..1 and weights (N, P).

    Args:
        truth: True inside an object.
        valid: pixels (N, H, W) that are not ignored; None where all are valid.
        points: where to look.

    Returns:
        The share of the object among the valid pixels around each point; and the share of valid pixels
        there, which is 0 where a point falls among ignored pixels.
    """
    labels = sample(truth.to(points.dtype), points)
    if valid is None:
        return labels, points.new_ones(points.shape[:2])
    # The pixels beyond the border count as background, as in the reference, but not as ignored.
    weights = sample(valid[:, None].to(points.dtype), points, padding="border")  # (N, 1, P)
    labels = labels / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    return labels.clamp(max=1), weights.squeeze(1)


def uncertain_points(
    logits: Tensor, valid: Tensor | None, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return points (N, count, 2): most of them where the masks are undecided, the rest anywhere.

    Args:
        logits: masks (N, h, w); 0 is undecided.
        valid: pixels (N, H, W) that are not ignored, or None; the others are chosen last.
        count: points per mask.
        generator: None draws from the global random state.
    """

    def certainty(points: Tensor) -> Tensor:
        sure = sample(logits[:, None], points).squeeze(1).abs()
        if valid is None:
            return sure
        weights = sample(valid[:, None].to(points.dtype), points, padding="border").squeeze(1)
        return sure.masked_fill(weights == 0, torch.inf)

    return choose_points(certainty, len(logits), count, logits, generator)
