"""The block that U-shaped networks climb by: enlarge a map, join finer ones, convolve twice."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct
from nets.layers.resize import resize

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "nearest-exact"]
Enlargement = Literal["nearest", "bilinear", "bicubic", "area", "nearest-exact", "transposed"]
# Reduction of the channel attention of scSE and of MA-Net.
REDUCTION = 16


def squeeze_excite(channels: int) -> nn.Sequential:
    """Return the weights of channels, 0..1, that their means decide (https://arxiv.org/abs/1709.01507)."""
    reduced = max(channels // REDUCTION, 1)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(channels, reduced, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(reduced, channels, 1),
        nn.Sigmoid(),
    )


class SCSE(nn.Module):
    """Weigh channels and, beside it, pixels; the sum of both.

    Roy, Navab, Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
    Networks", MICCAI 2018, https://arxiv.org/abs/1803.02579
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channel = squeeze_excite(channels)
        self.pixel = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return x * self.channel(x) + x * self.pixel(x).sigmoid()


class JoinBlock(nn.Sequential):
    """Enlarge a map, join finer ones if there are any, convolve twice.

    Args:
        in_channels: channels of the map.
        joined: channels of the finer maps together; 0 without any.
        channels: width.
        norm: batch norm behind each convolution.
        enlarge: how the map is enlarged; "transposed" is a 2x2 transposed convolution to `channels`.
        scse: `SCSE` before and behind the convolutions.
        first_scse: that before the convolutions; None is with finer maps only.
    """

    def __init__(
        self,
        in_channels: int,
        joined: int,
        channels: int,
        *,
        norm: bool = True,
        enlarge: Enlargement = "nearest",
        scse: bool = False,
        first_scse: bool | None = None,
    ):
        width = (channels if enlarge == "transposed" else in_channels) + joined
        super().__init__(ConvNormAct(width, channels, norm=norm), ConvNormAct(channels, channels, norm=norm))
        self.mode = enlarge
        if enlarge == "transposed":
            self.up = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        before = bool(joined) if first_scse is None else first_scse
        self.before = SCSE(width) if scse and before else nn.Identity()
        self.behind = SCSE(channels) if scse else nn.Identity()

    def forward(self, x: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """Map (B, C, h, w) and finer (B, C_i, H, W) to (B, D, H, W), or (B, D, 2 h, 2 w) without them."""
        # To the finer map's own size: odd sizes are rounded on the way down.
        x = self._enlarged(x, finer[0].shape[-2:] if finer else None)
        x = self.before(torch.cat([x, *finer], dim=1) if finer else x)
        return self.behind(self[1](self[0](x)))

    def _enlarged(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        if self.mode == "transposed":
            x = self.up(x)
            return x if size is None else resize(x, size)
        scale = 2.0 if size is None else None
        return F.interpolate(x, size=size, scale_factor=scale, mode=self.mode)


def center_block(channels: int, *, norm: bool = True) -> nn.Sequential:
    """Return two convolutions for the deepest map, as U-Nets on VGG have them."""
    return nn.Sequential(*(ConvNormAct(channels, channels, norm=norm) for _ in range(2)))


def repeated(widths: Sequence[int], number: int) -> list[int]:
    """Return `number` widths; missing ones repeat the last."""
    return [widths[min(i, len(widths) - 1)] for i in range(number)]


def doublings(stride: int) -> int:
    """Return how often a map of this stride in pixels must be enlarged to the image."""
    return max(stride.bit_length() - 1, 0)
