"""One pass of a network over labelled images, as training makes it each epoch and evaluate.py once."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.data.labels import IGNORE
from utils.data.loaders import to_device
from utils.devices import unwrap
from utils.evaluation.metrics import ConfusionMatrix, Metrics, compute_metrics
from utils.inference.decisions import decide_outputs
from utils.inference.padding import pad_to_rules

Criterion = Callable[[dict, Tensor], tuple[Tensor, Tensor]]


@contextmanager
def eval_mode(*parts: object) -> Iterator[None]:
    """Put those parts that are modules in eval mode and give them back as they were, also after an error."""
    own = [part for part in parts if isinstance(part, nn.Module)]
    modes = [(module, module.training) for part in own for module in part.modules()]
    for part in own:
        part.eval()
    try:
        yield
    finally:
        for module, training in modes:  # one by one: a frozen batch norm stays frozen
            module.training = training


def evaluate_network(
    network: nn.Module,
    loader: Iterable,
    device: torch.device,
    criterion: Criterion | None = None,
    progress: Callable[[Iterable], Iterable] | None = None,
    *,
    classify: Callable[[Tensor, Sequence[str]], Tensor] | None = None,
    each: Callable[[dict, Tensor, Tensor], object] | None = None,
) -> tuple[ConfusionMatrix, dict[str, float] | None, list[Metrics]]:
    """Compare the network's predictions with the masks of all batches.

    Args:
        network: on its device, wrapped in DataParallel or not; its training mode is restored.
        loader: labelled batches as `evaluation_loader` gives them, in a fixed order.
        device: where the images go.
        criterion: (outputs, masks) -> (total, main) loss, in eval mode if it is a module; None measures no
            loss.
        progress: wraps the loader, e.g. `functools.partial(tqdm, desc="val")`.
        classify: images (B, C, H, W) and their names -> class ids (B, H, W), where these are not those of
            `decide_outputs`; without a criterion only.
        each: called with every batch, its class ids and its masks, (B, H, W); of several labels these and the
            class ids are (B, K, H, W) of 0 and 1.

    Returns:
        The confusion matrix of all pixels; the losses {"total", "main"} averaged over the valid pixels (NaN
        where there is none), or None without a criterion; the scores of each image in the loader's order.
    """
    confusion = ConfusionMatrix(unwrap(network).num_classes, unwrap(network).task)
    losses = _MeanLosses(criterion) if criterion else None
    scores: list[Metrics] = []
    batches = progress(loader) if progress else loader
    with torch.inference_mode(), eval_mode(network, criterion):
        for batch in batches:
            images, masks = to_device(batch, device)
            height, width = masks.shape[-2:]
            if classify:
                predictions = classify(images, batch["name"]).to(masks.device)
            else:
                images, masks = pad_batch(images, masks, network)
                outputs = network(images)
                predictions = decide_outputs(unwrap(network), outputs)
            counts = confusion.update(predictions, masks)
            if each:
                each(batch, predictions[..., :height, :width], masks[..., :height, :width])
            scores += [compute_metrics(matrix) for matrix in counts.cpu()]
            valid = int(counts.sum())
            if losses and valid:  # the mean over no pixel is NaN and would spoil the sum
                losses.update(outputs, masks, valid)
                _show_loss(batches, losses.compute()["main"])
    return confusion, losses.compute() if losses else None, scores


class _MeanLosses:
    """Total and main loss, averaged over the valid pixels."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion
        self.sums, self.pixels = [0.0, 0.0], 0

    def update(self, outputs: dict, masks: Tensor, valid: int) -> None:
        """Count the losses of a batch with that many valid pixels."""
        losses = self.criterion(outputs, masks)
        self.sums = [total + valid * loss.item() for total, loss in zip(self.sums, losses, strict=True)]
        self.pixels += valid

    def compute(self) -> dict[str, float]:
        """Return the means, NaN where no pixel was valid."""
        total, main = (value / self.pixels if self.pixels else math.nan for value in self.sums)
        return {"total": total, "main": main}


def pad_batch(images: Tensor, masks: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Pad images (B, C, H, W) to the sizes that the network accepts, and masks with ignored pixels.

    Padded outputs can then be compared with the padded masks as they are, at whatever scale a loss works.
    """
    padded, (height, width) = pad_to_rules(images, network)
    below, right = padded.shape[-2] - height, padded.shape[-1] - width
    return padded, F.pad(masks, (0, right, 0, below), value=IGNORE) if below or right else masks


def _show_loss(batches: Iterable, loss: float) -> None:
    if hasattr(batches, "set_postfix"):
        batches.set_postfix(loss=f"{loss:.4f}")
