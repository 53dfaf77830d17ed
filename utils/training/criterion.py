"""The criterion of a run: (outputs, masks) -> (loss to minimise, main loss alone)."""

from torch import nn

from nets.errors import UserError
from utils.training.losses import LOSSES, Criterion
from utils.training.mask_loss import MaskCriterion
from utils.training.recipe import Settings


def build_criterion(settings: Settings, class_weights: list[float] | None) -> nn.Module:
    """Return the loss that the settings name, per pixel or of masks, with one weight per class or None."""
    if settings.loss == "mask":
        return MaskCriterion(class_weights)
    return Criterion(settings.loss, class_weights, settings.aux_weight)


def check_loss(loss: str, family: str, own: str) -> None:
    """Refuse a loss that does not suit what a network predicts.

    Args:
        loss: what is asked for.
        family: name of the network family.
        own: the loss of its recipe.

    Raises:
        UserError: a loss of pixels for a network that predicts masks, or the other way round.
    """
    predicts_masks = own == "mask"
    if (loss == "mask") == predicts_masks:
        return
    what, allowed = ("masks", ["mask"]) if predicts_masks else ("a class for each pixel", list(LOSSES))
    raise UserError(
        f"--LOSS_TYPE {loss} is given; {family} predicts {what}: use {' or '.join(allowed)}, or leave it out"
    )
