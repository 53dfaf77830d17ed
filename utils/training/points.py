"""Points instead of pixels: where the losses of mask networks look at masks, and what they find there.

A point is (x, y) as fractions of the image's width and height, so maps of any resolution can be compared.
From Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, https://arxiv.org/abs/1912.08193.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Mask2Former's numbers: candidates per point, and the share of points that is chosen from them.
OVERSAMPLE, IMPORTANCE = 3, 0.75


def random_points(rows: int, count: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return points (rows, count, 2), uniform over the image, of the type and on the device of `like`."""
    return torch.rand(rows, count, 2, dtype=like.dtype, device=like.device, generator=generator)


def sample(maps: Tensor, points: Tensor, padding: str = "zeros") -> Tensor:
    """Map (N, C, h, w) and points (N, P, 2) to bilinear values (N, C, P).

    Its backward pass has no deterministic form on CUDA.
    """
    grid = 2 * points[:, :, None] - 1  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, padding_mode=padding, align_corners=False).squeeze(3)


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


@torch.no_grad()
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
    chosen = int(IMPORTANCE * count)
    candidates = random_points(len(logits), OVERSAMPLE * count, logits, generator)
    certainty = sample(logits[:, None], candidates).squeeze(1).abs()
    if valid is not None:
        weights = sample(valid[:, None].to(candidates.dtype), candidates, padding="border").squeeze(1)
        certainty = certainty.masked_fill(weights == 0, torch.inf)
    nearest = certainty.topk(chosen, dim=1, largest=False).indices  # (N, chosen)
    important = candidates.gather(1, nearest[:, :, None].expand(-1, -1, 2))
    return torch.cat([important, random_points(len(logits), count - chosen, logits, generator)], dim=1)
