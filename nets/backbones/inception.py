"""Inception v3, v4 and Inception-ResNet v2 on images of any size.

Papers: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (v3), CVPR 2016,
https://arxiv.org/abs/1512.00567; Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning" (v4), AAAI 2017, https://arxiv.org/abs/1602.07261

Deviations: these networks convolve without padding, so maps lose a margin and images below 75 pixels give
none. Here the convolutions of stride 1 are padded; for those of stride 2 the image gets a margin whose share
of each map is cut off again. Map i then has its stride's share of the image and lies where it should, and the
weights stay as they are.
"""

from torch import Tensor, nn

from nets.backbones.timm_backbone import TimmBackbone
from nets.layers.margins import crop, pad, share

# A chain of unpadded 3x3 steps of stride 2 puts pixel 0 of the map of stride s on pixel s - 1 of the image,
# and the map of stride 32 needs 31 pixels more than a multiple of 32.
BEFORE, AFTER = 15, 16


class UnpaddedInception(TimmBackbone):
    """An Inception network of timm; arguments as `TimmBackbone`."""

    def __init__(self, name: str, **arguments: object):
        super().__init__(name, **arguments)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
                module.padding = tuple(side // 2 for side in module.kernel_size)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, H / stride, W / stride), rounded up, finest first."""
        height, width = x.shape[-2:]
        size = tuple(BEFORE + AFTER + 32 * share(side, 32) for side in (height, width))
        features = super().forward(pad(x, size, (BEFORE, BEFORE)))
        return [
            self._crop(feature, stride, height, width)
            for feature, stride in zip(features, self.strides, strict=True)
        ]

    @staticmethod
    def _crop(feature: Tensor, stride: int, height: int, width: int) -> Tensor:
        """Return the rows and columns whose centres, stride - 1 - BEFORE + stride * i, lie in the image."""
        first = max(round((BEFORE - (stride - 1) / 2) / stride), 0)
        return crop(feature, (share(height, stride), share(width, stride)), (first, first))
