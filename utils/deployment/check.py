"""Whether an exported file gives what its network gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.deployment.real_image import cut_out
from utils.deployment.ties import FindMaxima, tied_as_in_file
from utils.inference.decisions import decide
from utils.inference.padding import pad_to_rules

# The largest difference of a logit, as a share of the largest logit, and of pixels with another class.
MOST = 1e-3
_LEAST = 1e-6  # logarithms of smaller probabilities are rounding
_LEAST_SIGMOID = 1e-3  # ONNX Runtime's sigmoid is right to 1e-6, whatever the probability
_LARGEST = 512  # side in pixels of what is compared


class ExportError(Exception):
    """The file does not give what the network gives."""


@dataclass(frozen=True)
class Difference:
    """How a file differs from its network on some images.

    Attributes:
        shape: (B, H, W) of the images.
        probability: largest difference of a probability.
        logit: largest difference of a log-probability, as a share of the largest logit. Log-probabilities
            are the logits but for a constant per pixel; of several labels the logits are compared.
        pixels: share of pixels with another best class, or of several labels of other decisions.
        ties: maxima that tie up to rounding and were taken where the file finds them (see `ties`).
        with_ties: `logit` with the network's own maxima.
    """

    shape: tuple[int, int, int]
    probability: float
    logit: float
    pixels: float
    ties: int = 0
    with_ties: float = 0.0

    @property
    def small(self) -> bool:
        """Whether both are the same for every purpose; NaN is not."""
        return self.logit <= MOST and self.pixels <= MOST

    def __str__(self) -> str:
        batch, height, width = self.shape
        ties = (
            f"; {self.ties} of its maxima tie up to rounding and were taken where the file finds them: else "
            f"{self.with_ties:.1e} of the largest logit"
        )
        return (
            f"{batch} x {height} x {width} pixels: largest difference {self.probability:.1e} of a "
            f"probability, {self.logit:.1e} of the largest logit; {100 * self.pixels:.3g} % of the pixels "
            f"in another class{ties if self.ties else ''}"
        )


def compare(network: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> Difference:
    """Return how `run` differs from the network.

    Raises:
        ExportError: its result has another size.
    """
    with torch.inference_mode():
        outputs = network(images)
        expected = network.probabilities(outputs)
        largest = outputs["logits"].abs().max().item()
        found = run(images)
    if found.shape != expected.shape:
        raise ExportError(f"{tuple(found.shape)} comes out where {tuple(expected.shape)} is right")
    logs = [_logs(each, network.task) for each in (found, expected)]
    return Difference(
        shape=(len(images), *images.shape[-2:]),
        probability=(found - expected).abs().max().item(),
        logit=(logs[0] - logs[1]).abs().max().item() / max(largest, torch.finfo(torch.float32).tiny),
        pixels=(decide(found, network.task) != decide(expected, network.task)).float().mean().item(),
    )


def _compare_with_ties(
    network: nn.Module,
    run: Callable[[Tensor], Tensor],
    images: Tensor,
    maxima: FindMaxima,
    own: Difference,
) -> Difference:
    with tied_as_in_file(network, maxima(images)) as ties:
        again = compare(network, run, images)
    return replace(again, ties=ties.count, with_ties=own.logit) if again.small else own


def _logs(probabilities: Tensor, task: str) -> Tensor:
    if task == "multilabel":
        return probabilities.logit(_LEAST_SIGMOID)
    return probabilities.clamp(min=_LEAST).log()


def check(
    network: nn.Module,
    run: Callable[[Tensor], Tensor],
    image: str | Path | None = None,
    maxima: FindMaxima | None = None,
) -> Iterator[Difference]:
    """Yield the differences on images of the sizes of `check_sizes`.

    Args:
        network: in eval mode, on the CPU, with `about`.
        run: images -> probabilities.
        image: file to take them from; None makes them from the band statistics.
        maxima: images -> the file's own maxima, where it may find others.

    Raises:
        ExportError: a difference is too large, or the file cannot take the size.
    """
    for batch, size in check_sizes(network):
        images = example(network, batch, size) if image is None else cut_out(network, image, batch, size)
        try:
            difference = compare(network, run, images)
            if not difference.small and maxima is not None:
                difference = _compare_with_ties(network, run, images, maxima, difference)
        except ExportError as error:
            raise ExportError(f"{_said(images)}: {error}") from error
        except Exception as error:  # each of the three runtimes has its own kinds
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise ExportError(f"{_said(images)}: the file does not run: {reason}") from error
        yield difference
        if not difference.small:
            raise ExportError(f"the file differs from the network: {difference}; at most {MOST:g} is allowed")


def _said(images: Tensor) -> str:
    return f"{images.shape[0]} x {images.shape[2]} x {images.shape[3]} pixels"


def check_sizes(network: nn.Module) -> list[tuple[int, tuple[int, int]]]:
    """Return numbers of images and their (height, width): tracing may keep what was true of one size alone.

    That of a training crop (less where it is large), a smaller and a larger one with odd sides, the smallest.
    """
    crop = network.about.get("crop_size") or (_LARGEST, _LARGEST)
    height, width = (max(min(side, _LARGEST), network.min_size) for side in crop)
    smaller = (max(height * 5 // 8 | 1, network.min_size + 1), max(width * 3 // 4 | 1, network.min_size + 3))
    larger = (height * 3 // 2 | 1, width * 3 // 2 | 1)
    return [(1, (height, width)), (2, smaller), (1, larger), (1, (network.min_size, network.min_size))]


def example(network: nn.Module, batch: int, size: tuple[int, int]) -> Tensor:
    """Return smooth and noisy images (B, C, H, W) in data units with the network's means and deviations.

    Their first rows and columns are invalid. The size follows the network's rules: it may be larger.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, network.bands, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    fine = torch.randn(batch, network.bands, *size, generator=generator)
    images = F.interpolate(coarse, size=size, mode="bilinear") + 0.3 * fine
    images = images * network.std[:, None, None] + network.mean[:, None, None]
    images[:, :, : size[0] // 8, : size[1] // 8] = torch.nan
    return pad_to_rules(images, network)[0]
