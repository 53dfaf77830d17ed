"""All losses by name, and weighted sums of them.

A loss is a function (output, masks, class weights or None, parameters) -> scalar. The output is logits
(B, K, H, W) for those that the flag LOSS_TYPE offers, the masks are (B, H, W) or, of several labels,
(B, K, H, W); a special loss takes what its network puts under the
key that the RECIPE names. What each promises is tested for all at once in tests/test_losses.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data.labels import IGNORE
from utils.loss_terms import PER_PIXEL, Term
from utils.training.edge_losses import detail, edges, near_edges
from utils.training.pixel_losses import cross_entropy, focal, mean_over_batch, ohem
from utils.training.point_loss import points
from utils.training.region_losses import boundary, dice, lovasz, tversky


def class_presence(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Map logits (B, K) to the mean binary cross entropy of which classes an image shows.

    The semantic encoding loss of Zhang et al., "Context Encoding for Semantic Segmentation", CVPR 2018,
    https://arxiv.org/abs/1803.08904. An image without a valid pixel does not count.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Class by class: one-hot masks would be K times as large, and scattering is not deterministic on CUDA.
    if masks.dim() == 4:  # several labels
        shown, valid = (where.flatten(2).any(2) for where in (masks == 1, masks != IGNORE))
    else:
        shown = torch.stack([(masks == index).flatten(1).any(1) for index in range(logits.shape[1])], dim=1)
        valid = (masks != IGNORE).flatten(1).any(1, keepdim=True)
    weights = valid.to(logits.dtype).expand_as(logits)
    if class_weights is not None:
        weights = weights * class_weights.to(logits.dtype)
    costs = F.binary_cross_entropy_with_logits(logits, shown.to(logits.dtype), reduction="none")
    return mean_over_batch(costs * weights, weights)


LOSSES = {
    "ce": cross_entropy,
    "focal": focal,
    "ohem": ohem,
    "dice": dice,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
    "class_presence": class_presence,
    "detail": detail,
    "edges": edges,
    "near_edges": near_edges,
    "points": points,
}


def weighted_sum(
    terms: Sequence[Term], output: Tensor | list[Tensor], masks: Tensor, class_weights: Tensor | None
) -> Tensor:
    """Return the sum of the terms' losses of one output.

    A list of logits has the sum of its members' losses; a special loss takes a list as it is.
    """
    total = 0.0
    for term in terms:
        several = isinstance(output, list) and term.name in PER_PIXEL
        for part in output if several else (output,):
            total = total + term.weight * LOSSES[term.name](part, masks, class_weights, **term.parameters)
    return total
