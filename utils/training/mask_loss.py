"""The loss of networks that predict a set of masks: match queries with classes, then compare the pairs.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation" (Mask2Former), CVPR 2022,
https://arxiv.org/abs/2112.01527: cross entropy over all queries, binary cross entropy and Dice of the matched
masks at sampled points, for every decoder layer alike.

Deviations: points among ignored pixels have no weight and are not sought (the reference takes them for
background); a mask counts as much as its class weighs (the reference has no class weights).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.layers.points import sample
from utils.training.distributed_sums import reduce_sum
from utils.training.matcher import WEIGHTS, Matches, Targets, match
from utils.training.pixel_losses import cross_entropy
from utils.training.points import sample_truth, uncertain_points

NO_OBJECT = 0.1  # weight of "no object" beside the classes
POINTS = 112 * 112  # per mask
EVALUATION_SEED = 0


class MaskCriterion(nn.Module):
    """The set loss, summed over the decoder layers.

    In training mode the points come from the global random state. In eval mode they are the same at each
    call and leave that state alone, so that a validation changes nothing of the training.

    Args:
        class_weights: one number per class, or None.
        points: points per mask.

    Attributes:
        shares: weights of class, mask and Dice, in the costs as in the losses.
    """

    shares = WEIGHTS

    def __init__(self, class_weights: list[float] | None = None, points: int = POINTS):
        super().__init__()
        self.points = points
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights)

    def forward(self, outputs: dict[str, Tensor | list[Tensor]], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map outputs and masks (B, H, W) to (loss of all layers, loss of the last layer), both scalars."""
        generator = None
        if not self.training:
            generator = torch.Generator(masks.device).manual_seed(EVALUATION_SEED)
        *earlier, last = zip(outputs["mask_logits"], outputs["class_logits"], strict=True)
        # Autocast would take the costs' products of matrices to half precision.
        with torch.autocast(masks.device.type, enabled=False):
            targets = Targets.of(masks)
            # The last layer first, the order in which the reference draws its points.
            main = self._weigh(self.terms(*last, targets, generator))
            total = main
            for layer in earlier:
                total = total + self._weigh(self.terms(*layer, targets, generator))
        return total, main

    def terms(
        self,
        mask_logits: Tensor,
        class_logits: Tensor,
        targets: Targets,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map one layer's masks (B, Q, h, w) and classes (B, Q, K+1) to its class, mask and Dice losses."""
        mask_logits = mask_logits.to(torch.promote_types(mask_logits.dtype, torch.float32))
        matches = self._match(mask_logits, class_logits, targets, generator)
        no_object = class_logits.shape[-1] - 1
        weights = mask_logits.new_ones(no_object + 1)
        weights[no_object] = NO_OBJECT
        if self.class_weights is not None:
            weights[:no_object] = self.class_weights
        truth = torch.full(class_logits.shape[:2], no_object, device=class_logits.device)  # (B, Q)
        truth[matches.images, matches.queries] = matches.classes
        by_class = cross_entropy(class_logits.transpose(1, 2), truth, weights)
        return by_class, *self._mask_terms(mask_logits, targets, matches, weights, generator)

    def _match(
        self, mask_logits: Tensor, class_logits: Tensor, targets: Targets, generator: torch.Generator | None
    ) -> Matches:
        """Assign queries to the objects of each image."""
        return match(mask_logits, class_logits, targets, self.points, generator)

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
        truth = targets.masks[matches.images] == matches.classes[:, None, None]  # (N, H, W)
        valid = None if targets.valid is None else targets.valid[matches.images]
        points = uncertain_points(masks.detach(), valid, self.points, generator)
        labels, shares = sample_truth(truth[:, None], valid, points)
        bce, dice = point_losses(sample(masks[:, None], points)[:, 0], labels[:, 0], shares)
        return mean_over_objects(bce, dice, targets, matches, weights)

    def _weigh(self, terms: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return sum(weight * term for weight, term in zip(self.shares, terms, strict=True))


def mean_over_objects(
    by_mask: Tensor, dice: Tensor, targets: Targets, matches: Matches, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Map mask and Dice losses (N,) of the pairs to their means over the objects of the whole batch.

    All objects count, matched or not, each as much as its class (`weights`, (K+1,)).
    """
    count = weights[torch.cat(targets.classes)].sum()
    own = weights[matches.classes]
    by_mask, dice, count = reduce_sum(torch.stack([(own * by_mask).sum(), (own * dice).sum(), count]))
    count = count.clamp(min=torch.finfo(count.dtype).tiny)
    return by_mask / count, dice / count


def point_losses(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Map masks at points (N, P), labels in 0..1 and weights of the points to BCE and Dice losses (N,)."""
    bce = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none").sum(1)
    bce = bce / weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)
    return bce, dice_losses(logits, labels, weights)


def dice_losses(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Map masks at places (N, P), labels in 0..1 and weights of the places to Dice losses (N,)."""
    scores = logits.sigmoid()
    both, either = (weights * scores * labels).sum(1), (weights * (scores + labels)).sum(1)
    return 1 - (2 * both + 1) / (either + 1)
