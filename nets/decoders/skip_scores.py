"""Scores of several maps, each enlarged to the next finer one and added to its: FCN-32s, FCN-16s, FCN-8s.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038, sections 3.3 and 4.2, figure 3
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.margins import crop


class BilinearUp(nn.ConvTranspose2d):
    """Transposed convolution that doubles the resolution and starts as bilinear interpolation.

    Its weight (K, K, 4, 4) is learnt and may mix classes.
    """

    own_start = True  # no other rule of starting is applied to it

    def __init__(self, channels: int):
        # One pixel is added on each side and three are cut off.
        super().__init__(channels, channels, 4, stride=2, padding=3, bias=False)

    def reset_parameters(self) -> None:
        """Give every channel the bilinear kernel and mix none."""
        side = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=self.weight.dtype, device=self.weight.device)
        channel = torch.arange(self.in_channels, device=self.weight.device)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[channel, channel] = side[:, None] * side

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, K, h, w) to (B, K, 2h, 2w)."""
        # Beyond the border the scores go on as they are; with zeros they would fade there.
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate"))


class SkipScores(nn.Module):
    """Score each map by a 1x1 convolution, coarsest first, and sum up the scores.

    Args:
        in_channels: channels of the maps, finest first.
        num_classes: number of classes.
        stride: of the finest map, in pixels.
        scales: fixed factors on the maps but the coarsest, finest first.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, *, stride: int, scales: Sequence[float]):
        super().__init__()
        self.stride, self.scales = stride, (*scales, 1.0)
        self.scores = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in in_channels)
        self.ups = nn.ModuleList(BilinearUp(num_classes) for _ in in_channels[1:])
        for score in self.scores:
            nn.init.zeros_(score.weight)  # paper, section 4.3
            nn.init.zeros_(score.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to logits (B, K, h_0 * stride, w_0 * stride)."""
        scored = [
            score(feature * scale)
            for score, feature, scale in zip(self.scores, features, self.scales, strict=True)
        ]
        x = scored.pop()
        for up in self.ups:
            finer = scored.pop()
            # Twice a size that was rounded up may be one pixel more.
            x = crop(up(x), finer.shape[-2:]) + finer
        # The last enlargement is fixed.
        return F.interpolate(x, scale_factor=self.stride, mode="bilinear", align_corners=False)
