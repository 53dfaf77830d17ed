"""Prediction of images that fit in memory, in one piece."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from utils.devices import unwrap
from utils.inference.augment import augmented
from utils.inference.padding import pad_to_rules
from utils.inference.windows import to_images


def predictor(
    network: nn.Module, device: torch.device, augmentations: Sequence[str | float] = ()
) -> Callable[[Tensor], Tensor]:
    """Return images (B, C, h, w) -> probabilities (B, K, h, w), for any size of at least one pixel.

    Args:
        network: in eval mode, on `device`; a DataParallel wrapper is fine.
        device: where the images go.
        augmentations: changed copies whose mean is taken, see `augment.passes`.
    """
    inner = unwrap(network)
    memory_format = memory_format_of(inner)

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            padded, (height, width) = pad_to_rules(images.to(device), inner)
            probabilities = inner.probabilities(network(padded.contiguous(memory_format=memory_format)))
            return probabilities[..., :height, :width]

    return augmented(predict, augmentations)


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """Return the memory format of the network's convolution weights, which the images should share.

    Else every map is put in another order. Weights of 1x1 have both formats and decide nothing.
    """
    last = torch.channels_last
    weights = (weight for weight in network.parameters() if weight.dim() == 4)
    mixed = any(each.is_contiguous(memory_format=last) and not each.is_contiguous() for each in weights)
    return last if mixed else torch.contiguous_format


def predict_whole(
    predict: Callable[[Tensor], Tensor], image: np.ndarray, valid: np.ndarray, num_classes: int
) -> np.ndarray:
    """Predict one image in one piece.

    Args:
        predict: what `predictor` returns.
        image: (C, H, W) of any dtype and size.
        valid: (H, W), False where the pixel has no data.
        num_classes: K.

    Returns:
        Probabilities (K, H, W) float32, NaN where not valid.
    """
    if not valid.any():
        return np.full((num_classes, *valid.shape), np.nan, np.float32)
    images = to_images(image, valid)[None]
    probabilities = predict(images)[0].float().cpu().numpy()
    probabilities[:, ~valid] = np.nan
    return probabilities
