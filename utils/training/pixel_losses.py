"""Losses that are a mean over pixels: cross entropy, focal and online hard example mining.

All losses are functions of logits (B, K, H, W), masks (B, H, W) and one weight per class or None. Ignored
pixels change nothing, a batch without a valid pixel gives 0, arithmetic is at least float32, and every sum
over the batch goes through `reduce_sum`.

Masks (B, K, H, W) are those of several labels: 1 where a class is present, 0 where it is absent, and ignored
class by class. Then every pixel is K problems of two classes, present and absent, whose softmax of (0, logit)
is the sigmoid of the logit: the cross entropy becomes the binary one, and the mean is over all K problems. A
class's weight is that of its problem, present and absent alike: so 0.5 remains the fair threshold.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data.labels import IGNORE
from utils.training.distributed_sums import reduce_sum


def cross_entropy(
    logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the weighted mean of -log p.

    Args:
        logits: (B, K, H, W) or of any other spatial shape.
        masks: (B, H, W), likewise, or of several labels.
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
    softmax over K classes; of several labels the paper's own form.
    """
    log_p, _, weights = true_class(logits, masks, class_weights)
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
        masks: (B, H, W); of several labels each class at a pixel is hard or not.
        class_weights: one number per class.
        threshold: a pixel is hard below this probability.
        kept: at least that many of the hardest pixels of an image count; below 1 it is their share.
        label_smoothing: as for `cross_entropy`.
    """
    log_p, costs, weights = _cross_entropies(logits, masks, class_weights, label_smoothing)
    hard = _hard_pixels(log_p.detach().exp(), masks != IGNORE, threshold, kept)
    return mean_over_batch(costs * hard, weights * hard)


def _hard_pixels(p: Tensor, valid: Tensor, threshold: float, kept: float) -> Tensor:
    """Return which pixels (B, ...) count; p is the probability of the true class."""
    p = torch.where(valid, p, torch.inf).flatten(1)  # (B, N)
    counts = valid.flatten(1).sum(1)
    least = (counts * kept).ceil().long() if kept < 1 else counts.clamp(max=int(kept))
    place = (least - 1).clamp(min=0)[:, None]
    limit = p.sort(dim=1).values.gather(1, place)  # (B, 1)
    hard = (p < threshold) | ((p <= limit) & (least > 0)[:, None])
    return hard.view_as(valid) & valid


def true_class(logits: Tensor, masks: Tensor, class_weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of what is true, log p of all that could be, and the weight (0 if ignored).

    The first and the last have the shape of the masks, the second has all possibilities along dimension 1.
    All are at least float32.
    """
    several = masks.dim() == logits.dim()
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if several:
        every = F.logsigmoid(torch.stack([-logits, logits], dim=1).to(dtype))  # (B, 2, K, H, W)
    else:
        every = logits.log_softmax(dim=1, dtype=dtype)
    # Not nll_loss: its CUDA version has no deterministic form, gather has.
    log_p = every.gather(1, masks.clamp(min=0)[:, None]).squeeze(1)
    return log_p, every, pixel_weights(masks, class_weights, dtype, several=several)


def pixel_weights(
    masks: Tensor, class_weights: Tensor | None, dtype: torch.dtype, *, several: bool
) -> Tensor:
    """Return the weight of each pixel, or of each class at each pixel, in the shape of the masks.

    Args:
        masks: (B, H, W) or, of several labels, (B, K, H, W).
        class_weights: one number per class, or None.
        dtype: of the result.
        several: the masks are those of several labels.
    """
    weights = (masks != IGNORE).to(dtype)
    if class_weights is None:
        return weights
    class_weights = class_weights.to(dtype)
    return weights * (class_weights[:, None, None] if several else class_weights[masks.clamp(min=0)])


def _cross_entropies(
    logits: Tensor, masks: Tensor, class_weights: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of the true class, the weighted cross entropy and the weight of each pixel."""
    log_p, every, weights = true_class(logits, masks, class_weights)
    costs = -log_p
    if label_smoothing:
        costs = (1 - label_smoothing) * costs - label_smoothing * every.mean(1)
    return log_p, costs * weights, weights


def mean_over_batch(costs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the costs, in which the weights already are, over the sum of the weights; 0 for 0."""
    total, count = reduce_sum(torch.stack([costs.sum(), weights.sum()]))
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)
