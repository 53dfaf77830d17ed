"""MaskFormer's loss of masks: focal and Dice over all pixels instead of sampled points.

Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS
2021, https://arxiv.org/abs/2107.06278, section 3.3; the weights are those of the authors' code and
of MMSegmentation. As there, queries and objects are matched at the masks' own resolution, and the loss is
taken at the image's.

Deviations: those of `utils.training.mask_loss`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.training.mask_loss import MaskCriterion, dice_losses, mean_over_objects
from utils.training.matcher import Matches, Targets, compare, pair

# Of the focal loss (Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002): weight of the inside, power.
ALPHA, GAMMA = 0.25, 2


class FocalMaskCriterion(MaskCriterion):
    """The set loss of MaskFormer, summed over the decoder layers. Nothing in it is random."""

    shares = (1.0, 20.0, 1.0)

    @torch.no_grad()
    def _match(
        self, mask_logits: Tensor, class_logits: Tensor, targets: Targets, generator: torch.Generator | None
    ) -> Matches:
        """Assign queries to the objects of each image."""
        size = mask_logits.shape[-2:]
        # Nearest, so that every pixel is in one class.
        small = F.interpolate(targets.masks[:, None].to(mask_logits.dtype), size, mode="nearest")[:, 0]
        costs = []
        for image, classes in enumerate(targets.classes):
            truth = small[image].flatten()  # (P,)
            labels = (truth == classes[:, None]).to(mask_logits.dtype)
            weights = (truth >= 0).to(mask_logits.dtype)
            logits = mask_logits[image].flatten(1)  # (Q, P)
            inside, outside = focal_costs(logits)
            costs.append(
                compare(logits, class_logits[image], labels, weights, classes, inside, outside, self.shares)
            )
        return pair(costs, targets)

    def _mask_terms(
        self,
        mask_logits: Tensor,
        targets: Targets,
        matches: Matches,
        weights: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask and the Dice loss of the matched pairs."""
        masks = mask_logits[matches.images, matches.queries]  # (N, h, w)
        size = targets.masks.shape[-2:]
        logits = F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False).flatten(1)
        truth = targets.masks[matches.images].flatten(1)  # (N, P)
        labels = (truth == matches.classes[:, None]).to(logits.dtype)
        shares = (truth >= 0).to(logits.dtype)
        inside, outside = focal_costs(logits)
        focal = (shares * torch.where(labels > 0, inside, outside)).sum(1) / shares.sum(1).clamp(min=1)
        return mean_over_objects(focal, dice_losses(logits, labels, shares), targets, matches, weights)


def focal_costs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each pixel costs if it is inside an object, and if it is outside."""
    scores = logits.sigmoid()
    inside = ALPHA * (1 - scores) ** GAMMA * F.softplus(-logits)
    return inside, (1 - ALPHA) * scores**GAMMA * F.softplus(logits)
