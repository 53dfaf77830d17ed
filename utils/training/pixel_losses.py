"""Losses that are a mean over pixels: cross entropy, focal and online hard example mining.

All losses are functions of logits (B, K, H, W), masks (B, H, W) and one weight per class or None. Ignored
pixels change nothing, a batch without a valid pixel gives 0, arithmetic is at least float32, and every sum
over the batch goes through `reduce_sum`.
"""

import torch
from torch import Tensor

from utils.data.labels import IGNORE
from utils.training.distributed_sums import reduce_sum


def cross_entropy(
    logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the weighted mean of -log p.

    Args:
        logits: (B, K, H, W) or of any other spatial shape.
        masks: (B, H, W), likewise.
        class_weights: one number per class.
        label_smoothing: share of the truth that is spread over all classes; Szegedy et al., "Rethinking the
            Inception Architecture for Computer Vision", CVPR 2016, https://arxiv.org/abs/1512.00567. The true
            class's weight counts for the spread part too (PyTorch takes each class's own there).
    """
    _, costs, weights = _cross_entropies(logits, masks, class_weights, label_smoothing)
    return mean_over_batch(costs, weights)


def focal(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, gamma: float) -> Tensor:
    """Return the weighted mean of -(1 - p)^gamma log p.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002, with the
    softmax over K classes.
    """
    log_p, weights = true_class(log_probabilities(logits), masks, class_weights)
    # At p = 1 a power below 1 would have an infinite slope.
    left = (1 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).eps) if gamma else torch.ones_like(log_p)
    return mean_over_batch(-(left**gamma) * log_p * weights, weights)


def ohem(
    logits: Tensor,
    masks: Tensor,
    class_weights: Tensor | None = None,
    *,
    threshold: float,
    kept: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy of the hard pixels alone: the true class has less than `threshold`.

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", CVPR 2016,
    https://arxiv.org/abs/1604.03540; threshold and least number as in MMSegmentation's OHEMPixelSampler.
    Deviations: the least number is sought in each image, as in the paper, so the loss of an image does not
    depend on its neighbours in the batch (MMSegmentation seeks that many times B in the whole batch); the
    mean is over the kept pixels (MMSegmentation divides by all).

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W).
        class_weights: one number per class.
        threshold: a pixel is hard below this probability.
        kept: at least that many of the hardest pixels of an image count; below 1 it is their share.
        label_smoothing: as for `cross_entropy`.
    """
    log_p, costs, weights = _cross_entropies(logits, masks, class_weights, label_smoothing)
    hard = _hard_pixels(log_p.detach().exp(), masks != IGNORE, threshold, kept)
    return mean_over_batch(costs * hard, weights * hard)


def _hard_pixels(p: Tensor, valid: Tensor, threshold: float, kept: float) -> Tensor:
    """Return which pixels (B, H, W) count; p is the probability of the true class."""
    p = torch.where(valid, p, torch.inf).flatten(1)  # (B, H W)
    counts = valid.flatten(1).sum(1)
    least = (counts * kept).ceil().long() if kept < 1 else counts.clamp(max=int(kept))
    place = (least - 1).clamp(min=0)[:, None]
    limit = p.sort(dim=1).values.gather(1, place)  # (B, 1)
    hard = (p < threshold) | ((p <= limit) & (least > 0)[:, None])
    return hard.view_as(valid) & valid


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax over classes, at least float32."""
    return logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def true_class(log_p: Tensor, masks: Tensor, class_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log p of each pixel's true class and the pixel's weight (0 if ignored), both (B, H, W)."""
    valid = masks != IGNORE
    index = masks.clamp(min=0)
    # Not nll_loss: its CUDA version has no deterministic form, gather has.
    log_p = log_p.gather(1, index[:, None]).squeeze(1)
    weights = valid.to(log_p.dtype)
    if class_weights is not None:
        weights = weights * class_weights.to(log_p.dtype)[index]
    return log_p, weights


def _cross_entropies(
    logits: Tensor, masks: Tensor, class_weights: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of the true class, the weighted cross entropy and the weight of each pixel."""
    every = log_probabilities(logits)
    log_p, weights = true_class(every, masks, class_weights)
    costs = -log_p
    if label_smoothing:
        costs = (1 - label_smoothing) * costs - label_smoothing * every.mean(1)
    return log_p, costs * weights, weights


def mean_over_batch(costs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the costs, in which the weights already are, over the sum of the weights; 0 for 0."""
    total, count = reduce_sum(torch.stack([costs.sum(), weights.sum()]))
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)
