"""Sizes that a network accepts: pad to them before, crop after."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from utils.devices import unwrap


def pad_to_rules(images: Tensor, network: nn.Module) -> tuple[Tensor, tuple[int, int]]:
    """Pad images (B, C, H, W) at the bottom and the right to the sizes that the network accepts.

    The padding is NaN, which the network treats as invalid; images of whole numbers become float32 for it.

    Args:
        images: in data units.
        network: its `min_size` and `size_divisor` are the rules (default: 32 and 1); a wrapped one is fine.

    Returns:
        The padded images, and (H, W) to crop the result to: `outputs["logits"][..., :H, :W]`.
    """
    rules = unwrap(network)
    divisor, smallest = getattr(rules, "size_divisor", 1), getattr(rules, "min_size", 32)
    height, width = images.shape[-2:]
    sides = [math.ceil(max(side, smallest) / divisor) * divisor for side in (height, width)]
    if sides == [height, width]:
        return images, (height, width)
    images = images if images.is_floating_point() else images.float()
    return F.pad(images, (0, sides[1] - width, 0, sides[0] - height), value=math.nan), (height, width)
