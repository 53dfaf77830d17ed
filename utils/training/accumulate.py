"""A step on a batch in parts, one after the other, as if the whole batch were computed at once.

The loss of a batch is not the mean of its parts' losses where these have different numbers of valid pixels.
Means over weighted pixels (`ce`, `focal`) only need each part's weight. Of every other loss the gradient at
the outputs is found first, by a pass over all parts that keeps no activations; the parts are then computed
again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.random import fork_rng

from utils.loss_terms import parse_loss
from utils.training.distributed_sums import reduce_sum
from utils.training.pixel_losses import pixel_weights
from utils.training.precision import Precision
from utils.training.recipe import Settings
from utils.training.statistics_kept import statistics_kept

MEANS_OVER_PIXELS = ("ce", "focal")

Criterion = Callable[[dict, Tensor], tuple[Tensor, Tensor]]
Batch = tuple[Tensor, Tensor]


def is_mean_over_pixels(settings: Settings) -> bool:
    """Return whether the loss of a batch is the mean of its parts' losses, weighted by their valid pixels."""
    names = {term.name for term in parse_loss(settings.loss)}
    return names <= set(MEANS_OVER_PIXELS) and not settings.extra_losses


class Parts:
    """The parts of one step's batch.

    Iterating gives (images, masks) of each; `criterion` gives its share of the whole batch's losses.

    Args:
        model: network on its devices.
        criterion: (outputs, masks) -> (total, main) of a batch.
        batches: the parts, in which all processes agree in number.
        precision: what the network computes in.
        weighted: the loss is a mean over weighted pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        batches: list[Batch],
        precision: Precision,
        *,
        weighted: bool,
    ):
        self.model, self.whole_criterion, self.batches, self.precision = model, criterion, batches, precision
        self.position = 0
        self.shares, self.gradients, self.random = [1.0], [], []
        if len(batches) > 1 and weighted:
            self.shares = self._shares()
        elif len(batches) > 1:
            self._find_gradients()

    def __iter__(self) -> Iterator[Batch]:
        for position, (images, masks) in enumerate(self.batches):
            self.position = position
            with exchange_gradients(self.model, wanted=position == len(self.batches) - 1):
                if not self.random:
                    yield images, masks
                    continue
                with fork_rng(_cuda(images)):
                    _set_random(images, self.random[position])
                    yield images, masks

    def criterion(self, outputs: dict, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return what this part adds to the losses (total, main) of the whole batch."""
        if self.gradients:
            return self._surrogate(outputs)
        total, main = self.whole_criterion(outputs, masks)
        share = self.shares[self.position]
        return (total, main) if len(self.batches) == 1 else (share * total, share * main)

    def _shares(self) -> Tensor:
        """Return each part's share of the weight of all valid pixels."""
        class_weights = getattr(self.whole_criterion, "class_weights", None)
        weights = []
        for images, masks in self.batches:
            # Sums of many pixels; Apple's GPUs have no float64.
            dtype = torch.float32 if masks.device.type == "mps" else torch.float64
            several = masks.dim() == images.dim()
            weights.append(pixel_weights(masks, class_weights, dtype, several=several).sum())
        summed = reduce_sum(torch.stack(weights))
        return (summed / summed.sum().clamp(min=torch.finfo(summed.dtype).tiny)).float()

    def _find_gradients(self) -> None:
        """Compute the loss of the whole batch and its gradient at the outputs of each part."""
        outputs = []
        with torch.no_grad(), statistics_kept(self.model):
            for images, _ in self.batches:
                self.random.append(_random(images))
                with self.precision.autocast():
                    outputs.append(_tensors(self.model(images)))
        sizes = [len(images) for images, _ in self.batches]
        # In float32: a gradient at an output in half precision could vanish.
        leaves = {key: torch.cat([part[key] for part in outputs]) for key in outputs[0]}
        leaves = {key: _wide(leaf).requires_grad_() for key, leaf in leaves.items()}
        total, main = self.whole_criterion(_outputs(leaves), torch.cat([masks for _, masks in self.batches]))
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        used = {key: slope for key, slope in zip(leaves, found, strict=True) if slope is not None}
        self.gradients = [
            dict(zip(used, part, strict=True))
            for part in zip(*(s.split(sizes) for s in used.values()), strict=True)
        ]
        self.losses = total.detach() / len(sizes), main.detach() / len(sizes)

    def _surrogate(self, outputs: dict) -> tuple[Tensor, Tensor]:
        """Return the losses' values, the first with the gradient that was found."""
        tensors = _tensors(outputs)
        slope = sum((_wide(tensors[key]) * own).sum() for key, own in self.gradients[self.position].items())
        return slope - slope.detach() + self.losses[0], self.losses[1]


@contextmanager
def exchange_gradients(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Let processes exchange their gradients in the backward pass inside, or leave it to a later one."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not wanted:
        with model.no_sync():
            yield
        return
    if hasattr(model, "set_requires_gradient_sync"):  # FSDP
        model.set_requires_gradient_sync(wanted)
    yield


def _tensors(outputs: dict) -> dict[tuple[str, int], Tensor]:
    """Return the tensors of a dict of tensors and lists of tensors by (name, position or -1)."""
    flat = {}
    for name, value in outputs.items():
        parts = {-1: value} if isinstance(value, Tensor) else dict(enumerate(value))
        flat |= {(name, index): tensor for index, tensor in parts.items()}
    return flat


def _outputs(tensors: dict[tuple[str, int], Tensor]) -> dict:
    """Return what `_tensors` has taken apart."""
    outputs: dict = {}
    for (name, index), tensor in tensors.items():
        if index < 0:
            outputs[name] = tensor
        else:
            outputs.setdefault(name, []).append(tensor)
    return outputs


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _cuda(images: Tensor) -> list[torch.device]:
    return [images.device] if images.device.type == "cuda" else []


def _random(images: Tensor) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _cuda(images))]


def _set_random(images: Tensor, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in zip(_cuda(images), states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)
