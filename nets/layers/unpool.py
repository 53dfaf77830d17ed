"""Max unpooling."""

import torch.nn.functional as F
from torch import Tensor


def max_unpool(x: Tensor, pooled: Tensor) -> Tensor:
    """Map (B, C, h, w) to (B, C, H, W): each value goes where the 2x2 maximum was found, zeros elsewhere.

    Zeiler et al., "Adaptive Deconvolutional Networks for Mid and High Level Feature Learning", ICCV 2011. The
    indices are found again, which costs little: so a backbone gives plain maps, whatever decoder follows. An
    odd last row or column, which pooling leaves out, is zero.

    Args:
        x: values, one per 2x2 cell.
        pooled: map (B, C, H, W) that was pooled.
    """
    _, indices = F.max_pool2d(pooled, 2, return_indices=True)
    flat = x.new_zeros(*pooled.shape[:2], pooled.shape[2] * pooled.shape[3])
    # `F.max_unpool2d` does the same, but raises under deterministic algorithms; a scatter has a deterministic
    # form on every device.
    return flat.scatter(2, indices.flatten(2), x.flatten(2)).reshape(pooled.shape)
