"""Losses: functions of (logits, masks) and the criterion that sums them over a network's outputs.

Ignored pixels change nothing, class weights reach every loss, arithmetic is at least float32.
"""

import torch
from torch import Tensor, nn

from utils.data.labels import IGNORE
from utils.training.distributed_sums import reduce_sum


def cross_entropy(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Map logits (B, K, H, W) and masks (B, H, W) to the weighted mean of -log p over the valid pixels.

    A batch without a valid pixel gives 0.
    """
    log_p, weights = _true_class(logits, masks, class_weights)
    return _weighted_mean(-log_p, weights)


def focal(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Map logits (B, K, H, W) and masks (B, H, W) to the weighted mean of -(1 - p)^gamma log p.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002, with the
    softmax over K classes. A batch without a valid pixel gives 0.
    """
    log_p, weights = _true_class(logits, masks, class_weights)
    return _weighted_mean(-((1 - log_p.exp()) ** gamma) * log_p, weights)


LOSSES = {"ce": cross_entropy, "focal": focal}


def _true_class(logits: Tensor, masks: Tensor, class_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log p of each pixel's true class and the pixel's weight (0 if ignored), both (B, H, W)."""
    log_p = logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    valid = masks != IGNORE
    index = masks.clamp(min=0)
    # Not nll_loss: its CUDA version has no deterministic form, gather has.
    log_p = log_p.gather(1, index[:, None]).squeeze(1)
    weights = valid.to(log_p.dtype)
    if class_weights is not None:
        weights = weights * class_weights.to(log_p.dtype)[index]
    return log_p, weights


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return reduce_sum((values * weights).sum()) / reduce_sum(weights.sum()).clamp(
        min=torch.finfo(values.dtype).tiny
    )


class Criterion(nn.Module):
    """The main loss on "logits" plus `aux_weight` times its mean over the list "aux".

    Args:
        loss_type: a key of `LOSSES`.
        class_weights: one number per class, or None.
        aux_weight: weight of the auxiliary outputs.
    """

    def __init__(self, loss_type: str, class_weights: list[float] | None = None, aux_weight: float = 0.4):
        super().__init__()
        self.loss = LOSSES[loss_type]
        self.aux_weight = aux_weight
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights)

    def forward(self, outputs: dict[str, Tensor | list[Tensor]], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map outputs and masks (B, H, W) to (loss to minimise, main loss alone), both scalars."""
        main = self.loss(outputs["logits"], masks, self.class_weights)
        total = main
        for logits in outputs.get("aux", []):
            total = total + self.aux_weight * self.loss(logits, masks, self.class_weights)
        return total, main
