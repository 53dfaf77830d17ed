"""Losses of whole regions: Dice, Tversky, Lovasz and boundary.

They compare scores with the truth, class by class; a class counts where the truth shows it. Arguments and
promises are those of `utils.training.pixel_losses`; of several labels the scores are sigmoids, and each
class is compared where it is not ignored.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data.labels import IGNORE
from utils.training.distributed_sums import reduce_sum
from utils.training.pixel_losses import mean_over_batch


@dataclass(frozen=True)
class Regions:
    """The scores and the truth of each class as maps (B, K, H, W), 0 at ignored pixels.

    Attributes:
        scores: probabilities.
        truth: where the class is, bool.
        valid: pixels that are not ignored, (B, 1, H, W) or one map per class.
    """

    scores: Tensor
    truth: Tensor
    valid: Tensor

    @classmethod
    def of(cls, logits: Tensor, masks: Tensor) -> "Regions":
        """Return the regions of logits (B, K, H, W) and masks of either kind."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if masks.dim() == logits.dim():
            valid = masks != IGNORE
            return cls(logits.to(dtype).sigmoid() * valid, masks == 1, valid)
        classes = torch.arange(logits.shape[1], device=masks.device)[:, None, None]
        scores = logits.softmax(dim=1, dtype=dtype)
        valid = masks[:, None] != IGNORE
        return cls(scores * valid, masks[:, None] == classes, valid)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores, truth and valid pixels (N, H, W) of each image's classes, and which they are (B, K).

        Only the classes that an image shows: with 150 classes few of the B K maps are needed.
        """
        shown = self.truth.flatten(2).any(2)
        return self.scores[shown], self.truth[shown], self.valid.expand_as(self.truth)[shown], shown


def dice(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, smooth: float) -> Tensor:
    """Return the mean over classes of 1 - 2 |P T| / (|P| + |T|), sums over the batch.

    Milletari et al., "V-Net", 3DV 2016, https://arxiv.org/abs/1606.04797; with |P| instead of its squares as
    in Sudre et al., "Generalised Dice Overlap as a Deep Learning Loss Function for Highly Unbalanced
    Segmentations", DLMIA 2017, https://arxiv.org/abs/1707.03237.

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W).
        class_weights: one number per class.
        smooth: pixels added above and below the line, so that a class of few pixels is not all or nothing.
    """
    # |P| + |T| = 2 |P T| + what either has alone; halved, it is Tversky's with both shares 1/2.
    return tversky(logits, masks, class_weights, alpha=0.5, beta=0.5, smooth=smooth / 2)


def tversky(
    logits: Tensor,
    masks: Tensor,
    class_weights: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    smooth: float,
) -> Tensor:
    """Return the mean over classes of 1 - TP / (TP + alpha FP + beta FN), sums over the batch.

    Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
    MLMI 2017, https://arxiv.org/abs/1706.05721, whose shares 0.3 and 0.7 let a missed pixel cost more.

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W).
        class_weights: one number per class.
        alpha: cost of a pixel that is wrongly of the class.
        beta: cost of a pixel of the class that is missed.
        smooth: pixels added above and below the line.
    """
    regions = Regions.of(logits, masks)
    truth = regions.truth.to(regions.scores.dtype)
    parts = (regions.scores * truth, regions.scores, truth)
    both, scores, truth = reduce_sum(torch.stack([part.sum((0, 2, 3)) for part in parts]))  # (K,) each
    # alpha FP + beta FN is 0 at perfection to the last bit, so the loss is.
    wrong = alpha * (scores - both) + beta * (truth - both)
    losses = wrong / (both + wrong + smooth).clamp(min=torch.finfo(wrong.dtype).tiny)
    weights = (truth > 0).to(losses.dtype)
    if class_weights is not None:
        weights = weights * class_weights.to(losses.dtype)
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def lovasz(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the Lovasz extension of the Jaccard loss 1 - IoU, the mean over an image's classes, then images.

    Berman et al., "The Lovasz-Softmax loss: A tractable surrogate for the optimization of the
    intersection-over-union measure in neural networks", CVPR 2018, https://arxiv.org/abs/1705.08790. Of its
    two forms the one per image: that of a whole batch needs all pixels of all processes in one order.
    """
    regions = Regions.of(logits, masks)
    scores, truth, _, shown = regions.pairs()
    truth = truth.flatten(1)  # (N, H W)
    # Ignored pixels have an error of 0, come last and add nothing.
    errors, order = (scores.flatten(1) - truth.to(scores.dtype)).abs().sort(dim=1, descending=True)
    inside = truth.gather(1, order)
    # Counts, not floats: their sums along a line are deterministic on CUDA as well.
    left = inside.sum(1, keepdim=True) - inside.cumsum(1)
    union = inside.sum(1, keepdim=True) + (~inside).cumsum(1)
    jaccard = 1 - left.to(errors.dtype) / union
    slopes = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
    weights = _pair_weights(shown, class_weights, errors.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(errors.dtype).tiny)
    return mean_over_batch((errors * slopes).sum(1) * weights[shown], weights)


def boundary(
    logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, *, width: float, distance: float
) -> Tensor:
    """Return the mean over images and their classes of 1 - F1 of the regions' outlines.

    Bokhovkin and Burnaev, "Boundary Loss for Remote Sensing Imagery Semantic Segmentation", ISNN 2019,
    https://arxiv.org/abs/1905.07852. Preferred to Kervadec et al., MIDL 2019,
    https://arxiv.org/abs/1812.07032: made for remote sensing, 0 at perfection, and without a distance
    transform on the CPU at each step. Deviations: precision and recall each have one pixel added above and
    below the line; the edge of an ignored area is no outline; a class without an outline in an image does not
    count.

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W).
        class_weights: one number per class.
        width: pixels of the window in which an outline is found (the paper's theta 0), made odd.
        distance: pixels of the window in which two outlines count as the same (its theta), made odd.
    """
    regions = Regions.of(logits, masks)
    scores, truth, valid, shown = regions.pairs()
    valid = valid.to(scores.dtype)
    own, theirs = (_outline(x.to(scores.dtype), valid, width) for x in (scores, truth))
    near_own, near_theirs = (_widest(x, distance) for x in (own, theirs))
    precision = ((own * near_theirs).sum((1, 2)) + 1) / (own.sum((1, 2)) + 1)  # (N,)
    recall = ((theirs * near_own).sum((1, 2)) + 1) / (theirs.sum((1, 2)) + 1)
    losses = 1 - 2 * precision * recall / (precision + recall)
    weights = _pair_weights(shown, class_weights, losses.dtype)[shown] * theirs.flatten(1).any(1)
    return mean_over_batch(losses * weights, weights)


def _pair_weights(shown: Tensor, class_weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the weight (B, K) of each class in each image, 0 where it is not shown."""
    weights = shown.to(dtype)
    return weights if class_weights is None else weights * class_weights.to(dtype)


def _outline(regions: Tensor, valid: Tensor, width: float) -> Tensor:
    """Map regions (N, H, W) to the part of them that is next to what is outside."""
    outside = (1 - regions) * valid
    return (_widest(outside, width) - outside) * valid


def _widest(maps: Tensor, size: float) -> Tensor:
    """Map (N, H, W) to the largest value in a window of odd size around each pixel."""
    reach = int(size) // 2
    return F.max_pool2d(maps[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
