"""Losses of networks that learn where classes meet: STDC's details and PIDNet's boundaries.

As all losses, functions of an output, masks (B, H, W) and class weights or None; the weights act on classes
of pixels and so only on `near_edges`. Ignored pixels change nothing. Of several labels, masks (B, K, H, W),
each has edges of its own; together they are the truth.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data.labels import IGNORE
from utils.training.distributed_sums import reduce_sum
from utils.training.pixel_losses import mean_over_batch, ohem

# STDC: strides of the Laplacian with the weight of what each finds, and the least sum that is a detail.
STRIDES = ((1, 0.6), (2, 0.3), (4, 0.1))
THRESHOLD = 0.1
DICE_EPS = 1e-3


def detail(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Map logits (B, 1 or 2, H, W) to binary cross entropy plus Dice loss of where the details are.

    Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021,
    https://arxiv.org/abs/2104.13188, section 3.3. Of two logits the first is for the absence of a detail, as
    in MMSegmentation. The Dice loss is an image's, over both.
    """
    logits = _wide(logits)
    edges = detail_edges(masks)[:, None]
    target = edges if logits.shape[1] == 1 else torch.cat([~edges, edges], dim=1)
    target, valid = target.to(logits.dtype), _valid(masks)[:, None].expand_as(logits).to(logits.dtype)
    costs = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p, target = (logits.sigmoid() * valid).flatten(1), (target * valid).flatten(1)
    squares = p.square().sum(1) + target.square().sum(1) + 2 * DICE_EPS
    dice = 1 - 2 * (p * target).sum(1) / squares  # (B,)
    shown = valid.flatten(1).amax(1)
    return mean_over_batch(costs * valid, valid) + mean_over_batch(dice * shown, shown)


def detail_edges(masks: Tensor) -> Tensor:
    """Map masks (B, H, W) or (B, K, H, W) to whether a detail is at a pixel (B, H, W).

    As in the authors' code the Laplacian runs over the numbers of the classes, so of two classes the one with
    the larger number has the edge, and the border of the image is one too. Beside ignored pixels there is
    none (they take 255 as a class). What only stride 4 finds weighs 0.1, which is not above the threshold.
    """
    planes = _planes(masks)
    ignored, labels = (planes == IGNORE).float(), planes.clamp(min=0).float()
    found = torch.zeros_like(labels)
    for stride, weight in STRIDES:
        # 8 times the pixel minus its neighbours; pools stay exact enough where autocast would round.
        mean = F.avg_pool2d(labels, 3, stride, padding=1)
        sharp = 9 * (labels[..., ::stride, ::stride] - mean) > 0.5
        sharp &= F.max_pool2d(ignored, 3, stride, padding=1) == 0
        found += weight * F.interpolate(sharp.float(), masks.shape[-2:], mode="nearest")
    return (found > THRESHOLD).any(1)


def edges(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, width: float) -> Tensor:
    """Map logits (B, 1, H, W) to a binary cross entropy in which edges and the rest weigh the same.

    Xu et al., "PIDNet", CVPR 2023, https://arxiv.org/abs/2206.02066, equation 6: each side weighs the other's
    share of the pixels.

    Args:
        logits: of an edge at each pixel.
        masks: classes.
        class_weights: do not count here.
        width: of the edges, in pixels.
    """
    logits = _wide(logits).squeeze(1)
    target, valid = edge_map(masks, int(width)), _valid(masks)
    counts = torch.stack([(target & valid).sum(), (~target & valid).sum()]).to(logits.dtype)
    counts = reduce_sum(counts)
    of_edges, of_rest = counts.flip(0) / counts.sum().clamp(min=1)
    costs = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    valid = valid.to(logits.dtype)
    return mean_over_batch(costs * torch.where(target, of_edges, of_rest) * valid, valid)


def edge_map(masks: Tensor, width: int) -> Tensor:
    """Map masks (B, H, W) or (B, K, H, W) to whether a pixel is within an edge between two classes (B, H, W).

    The place of an edge of even width is that of MMSegmentation's GenerateEdge, which is that of CE2P's
    authors: https://arxiv.org/abs/1809.05996. Beside ignored pixels there is no edge.
    """
    masks = _planes(masks)
    found = torch.zeros_like(masks, dtype=torch.bool)
    # Of two neighbours that differ: the lower, the left, the upper left and the upper right pixel.
    pairs = (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))),
        ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))),
    )
    for marked, neighbour in pairs:
        one, other = masks[(..., *marked)], masks[(..., *neighbour)]
        found[(..., *marked)] |= (one != other) & (one != IGNORE) & (other != IGNORE)
    before, after = width // 2, width - 1 - width // 2
    padded = F.pad(found.any(1).float(), (before, after, before, after))
    return F.max_pool2d(padded, width, 1) > 0


def near_edges(
    output: list[Tensor],
    masks: Tensor,
    class_weights: Tensor | None = None,
    *,
    sure: float,
    threshold: float,
    kept: float,
) -> Tensor:
    """Map [edge logits (B, 1, H, W), logits (B, K, H, W)] to `ohem` where the first are sure of an edge.

    PIDNet's boundary-awareness loss (equation 7); the places are not learnt from it.

    Args:
        output: both logits.
        masks: classes.
        class_weights: as for `ohem`.
        sure: least probability of an edge.
        threshold: as for `ohem`.
        kept: as for `ohem`.
    """
    edge_logits, logits = output
    unsure = _wide(edge_logits).sigmoid() <= sure
    masks = torch.where(unsure, IGNORE, _planes(masks)).view_as(masks)
    return ohem(logits, masks, class_weights, threshold=threshold, kept=kept)


def _planes(masks: Tensor) -> Tensor:
    """Map masks (B, H, W) to (B, 1, H, W); those of several labels stay (B, K, H, W)."""
    return masks.view(len(masks), -1, *masks.shape[-2:])


def _valid(masks: Tensor) -> Tensor:
    """Map masks to the pixels (B, H, W) at which not everything is ignored."""
    return (_planes(masks) != IGNORE).any(1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
