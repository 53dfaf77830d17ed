"""PointRend's loss: cross entropy at points.

As all losses, a function of an output, masks (B, H, W) or, for several labels, (B, K, H, W), and weights.
"""

from torch import Tensor

from utils.training.pixel_losses import cross_entropy


def points(output: list[Tensor], masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Map [logits (B, K, P), points (B, P, 2)] to the cross entropy with the pixels at the points.

    Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020,
    https://arxiv.org/abs/1912.08193. Points at ignored pixels change nothing.

    Args:
        output: logits, and where they are, as fractions of the image's width and height.
        masks: classes.
        class_weights: one number per class, or None.
    """
    logits, places = output
    height, width = masks.shape[-2:]
    columns = (places[..., 0] * width).long().clamp(0, width - 1)
    rows = (places[..., 1] * height).long().clamp(0, height - 1)
    index = rows * width + columns  # (B, P)
    if masks.ndim == 4:
        index = index[:, None].expand(-1, masks.shape[1], -1)
    truth = masks.flatten(-2).gather(-1, index)
    return cross_entropy(logits[..., None], truth[..., None], class_weights)  # a map one pixel wide
