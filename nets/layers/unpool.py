"""Max unpooling."""

import torch.nn.functional as F
from torch import Tensor, nn


class MaxUnpool(nn.Module):
    """Put each value where the 2x2 maximum was found.

    Zeiler et al., "Adaptive Deconvolutional Networks for Mid and High Level Feature Learning", ICCV 2011. The
    indices are found again, which costs little: so a backbone gives plain maps, whatever decoder follows.
    """

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, H, W), zero elsewhere, also in an odd last row or column.

        Args:
            x: values, one per 2x2 cell.
            pooled: map (B, C, H, W) that was pooled.
        """
        return unpool(x, find_maxima(pooled), pooled)


def find_maxima(pooled: Tensor) -> Tensor:
    """Return for each 2x2 cell of (B, C, H, W) where its maximum is, as row * W + column: (B, C, h, w)."""
    return F.max_pool2d(pooled, 2, return_indices=True)[1]


def unpool(x: Tensor, maxima: Tensor, pooled: Tensor) -> Tensor:
    """Put the values at the given places of a map of the size of `pooled`, zeros elsewhere."""
    flat = x.new_zeros(*pooled.shape[:2], pooled.shape[2] * pooled.shape[3])
    # `F.max_unpool2d` does the same, but raises under deterministic algorithms; a scatter has a deterministic
    # form on every device.
    return flat.scatter(2, maxima.flatten(2), x.flatten(2)).reshape(pooled.shape)
