"""From maps of one resolution, as a plain transformer has them, to a pyramid of maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, set_norm_eps


class DeconvolvedMaps(nn.ModuleList):
    """Transposed convolutions enlarge a map, pooling shrinks it; the neck of BEiT and MAE.

    As in the authors' code (https://github.com/microsoft/unilm, beit/semantic_segmentation).

    Args:
        channels: of every map.
        scales: enlargement of each map: 4, 2, 1, 0.5 or 0.25.
        norm_eps: epsilon of the batch norm between two enlargements.
    """

    def __init__(self, channels: int, scales: Sequence[float], *, norm_eps: float = 1e-5):
        super().__init__(_rescale(channels, scale) for scale in scales)
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the (B, D, h, w) to as many (B, D, h * scale, w * scale)."""
        return [level(x) for level, x in zip(self, features, strict=True)]


def _rescale(channels: int, scale: float) -> nn.Module:
    """Return the module that enlarges a map `scale` times."""

    def double() -> nn.Module:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)

    if scale == 4:
        return nn.Sequential(double(), nn.BatchNorm2d(channels), nn.GELU(), double())
    if scale == 2:
        return nn.Sequential(double())
    return nn.Identity() if scale == 1 else nn.MaxPool2d(int(1 / scale))


class ResizedMaps(nn.Module):
    """A 1x1 convolution on each map, a bilinear change of its size, a 3x3 convolution.

    MMSegmentation's neck of ViT and DeiT (https://github.com/open-mmlab/mmsegmentation, "MultiLevelNeck").

    Args:
        in_channels: of each map; one map alone is used for all scales.
        channels: width.
        scales: enlargement of each.
        norm: batch norm behind each convolution.
        act: ReLU behind each convolution.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        scales: Sequence[float],
        *,
        norm: bool = False,
        act: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.scales = tuple(scales)
        self.laterals = nn.ModuleList(
            ConvNormAct(width, channels, 1, norm=norm, act=act) for width in in_channels
        )
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3, norm=norm, act=act) for _ in scales)
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the (B, C_i, h, w) to (B, D, h * scale, w * scale), one for each scale."""
        projected = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        if len(projected) == 1:
            projected *= len(self.scales)
        return [
            # By the factor and not to a size: of an odd size, half is not a whole number.
            smooth(F.interpolate(x, scale_factor=scale, mode="bilinear"))
            for smooth, x, scale in zip(self.smooth, projected, self.scales, strict=True)
        ]
