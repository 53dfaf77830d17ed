"""The criterion of a run: (outputs, masks) -> (loss to minimise, main loss alone)."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nets.errors import UserError
from utils.loss_terms import EXTRA, MASK, PER_PIXEL, Term, parse_loss
from utils.training.focal_mask_loss import FocalMaskCriterion
from utils.training.losses import weighted_sum
from utils.training.mask_loss import MaskCriterion
from utils.training.recipe import Settings

MASK_CRITERIA = {"mask": MaskCriterion, "mask_focal": FocalMaskCriterion}


class Criterion(nn.Module):
    """The main loss on "logits" plus the same on each of the list "aux", times its weight.

    Args:
        loss: as `parse_loss` reads it, or its terms.
        class_weights: one number per class, or None.
        aux_weight: weight of every auxiliary output, or one for each in their order.
    """

    def __init__(
        self,
        loss: str | tuple[Term, ...],
        class_weights: list[float] | None = None,
        aux_weight: float | tuple[float, ...] = 0.4,
    ):
        super().__init__()
        self.terms = parse_loss(loss, PER_PIXEL) if isinstance(loss, str) else loss
        self.aux_weight = aux_weight
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights)

    def forward(self, outputs: dict[str, Tensor | list[Tensor]], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map outputs and masks to (loss to minimise, main loss alone), both scalars."""
        main = weighted_sum(self.terms, outputs["logits"], masks, self.class_weights)
        total = main
        for index, logits in enumerate(outputs.get("aux", [])):
            weight = self.aux_weight[index] if isinstance(self.aux_weight, tuple) else self.aux_weight
            total = total + weight * weighted_sum(self.terms, logits, masks, self.class_weights)
        return total, main


class ExtraLosses(nn.Module):
    """A criterion and the losses of further outputs, which only the loss to minimise gets.

    Outputs that a network gives in training only are left out where they are missing.

    Args:
        criterion: of the other outputs.
        losses: output key -> loss, as `parse_loss` reads it; of a loss of several outputs the keys stand with
            commas between them.
    """

    def __init__(self, criterion: nn.Module, losses: Mapping[str, str]):
        super().__init__()
        self.criterion = criterion
        self.terms = {key: parse_loss(text, EXTRA) for key, text in losses.items()}

    @property
    def class_weights(self) -> Tensor | None:
        """One weight per class, or None."""
        return self.criterion.class_weights

    def forward(self, outputs: dict[str, Tensor | list[Tensor]], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Map outputs and masks to (loss to minimise, main loss alone), both scalars."""
        total, main = self.criterion(outputs, masks)
        for key, terms in self.terms.items():
            found = [outputs[part] for part in key.split(",") if part in outputs]
            if len(found) > key.count(","):
                output = found if "," in key else found[0]
                total = total + weighted_sum(terms, output, masks, self.class_weights)
        return total, main


def build_criterion(settings: Settings, class_weights: list[float] | None) -> nn.Module:
    """Return the loss that the settings name, per pixel or of masks, with one weight per class or None."""
    if settings.loss in MASK:
        criterion = MASK_CRITERIA[settings.loss](class_weights)
    else:
        terms = smoothed(parse_loss(settings.loss, PER_PIXEL), settings.label_smoothing)
        criterion = Criterion(terms, class_weights, settings.aux_weight)
    return ExtraLosses(criterion, settings.extra_losses) if settings.extra_losses else criterion


def smoothed(terms: tuple[Term, ...], label_smoothing: float | None) -> tuple[Term, ...]:
    """Return the terms with this label smoothing where they have any; None leaves them."""
    if label_smoothing is None:
        return terms
    own = {"label_smoothing": label_smoothing}
    return tuple(
        replace(term, parameters={**term.parameters, **own}) if own.keys() <= term.parameters.keys() else term
        for term in terms
    )


def check_loss(
    loss: str, family: str, own: str, label_smoothing: float | None = None, task: str = "multiclass"
) -> None:
    """Refuse a loss that does not suit what a network predicts.

    Args:
        loss: what is asked for.
        family: name of the network family.
        own: the loss of its recipe.
        label_smoothing: what is asked for, or None.
        task: of the network.

    Raises:
        UserError: a loss of pixels for a network that predicts masks, or the other way round; several labels
            of such a network; or label smoothing of a loss that has none.
    """
    predicts_masks = own in MASK
    if predicts_masks and task == "multilabel":
        raise UserError(
            f"{family} gives one class to each mask and so has no form for --TASK multilabel; "
            "choose a --MODEL_TYPE that scores every pixel, such as unet, segformer or upernet"
        )
    if (loss in MASK) != predicts_masks:
        what, allowed = ("masks", MASK) if predicts_masks else ("a class for each pixel", PER_PIXEL)
        raise UserError(
            f"--LOSS_TYPE {loss} is given; {family} predicts {what}: use {' or '.join(allowed)}, "
            "or leave it out"
        )
    if label_smoothing and not any("label_smoothing" in term.parameters for term in parse_loss(loss)):
        able = [name for name, parameters in PER_PIXEL.items() if "label_smoothing" in parameters]
        raise UserError(
            f"--LABEL_SMOOTHING acts on {' and '.join(able)}; the loss is {loss}: leave it out or change "
            "--LOSS_TYPE"
        )
