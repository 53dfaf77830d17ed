"""The original U-Net's two arms: convolutions down through five resolutions, and up again.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015, https://arxiv.org/abs/1505.04597, section 2 and figure 1
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_weights
from nets.layers.resize import resize

UpType = Literal["transposed", "interpolate", "deconv", "none"]


class Up(nn.Module):
    """Double the resolution and reduce the width.

    "transposed" is a 2x2 transposed convolution (the paper's up-convolution); "deconv" a 4x4 one with batch
    norm and ReLU; "interpolate" enlarges bilinearly before a 1x1 convolution with norm; "none" has that
    convolution alone.
    """

    def __init__(self, in_channels: int, channels: int, kind: UpType, *, norm: bool, align_corners: bool):
        super().__init__()
        self.kind, self.align_corners = kind, align_corners
        if kind == "transposed":
            self.enlarge = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        elif kind == "deconv":
            self.enlarge = nn.Sequential(
                nn.ConvTranspose2d(in_channels, channels, 4, stride=2, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
        else:
            self.project = ConvNormAct(in_channels, channels, 1, norm=norm)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (B, C, h, w) to (B, D, *size), twice the height and width up to a pixel."""
        if self.kind in ("transposed", "deconv"):
            # An odd size was rounded down on the way down.
            return resize(self.enlarge(x), size, align_corners=self.align_corners)
        return self.project(resize(x, size, align_corners=self.align_corners))


class UNetEncoder(nn.Module):
    """The contracting arm of the original U-Net, convolutions padded.

    Args:
        bands: bands of an image.
        base_channels: width at the finest resolution, doubled at each of the others.
        convs: 3x3 convolutions per stage, finest first.
        strides: of the first convolution of each stage.
        downsamples: whether 2x2 max pooling stands before each stage but the first; not with a stride.
        dilations: of all but the first convolution of a stage.
        norm: batch norm behind each convolution; the paper has none.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        *,
        bands: int,
        base_channels: int = 64,
        convs: Sequence[int] = (2, 2, 2, 2, 2),
        strides: Sequence[int] = (1, 1, 1, 1, 1),
        downsamples: Sequence[bool] = (True, True, True, True),
        dilations: Sequence[int] = (1, 1, 1, 1, 1),
        norm: bool = False,
    ):
        super().__init__()
        self.name = "unet"
        widths = [base_channels * 2**i for i in range(len(convs))]
        self.pooled = [False] + [
            bool(down) and stride == 1 for down, stride in zip(downsamples, strides[1:], strict=True)
        ]
        self.channels, self.strides = widths, []
        self.encoder = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else bands
            self.encoder.append(_convolutions(before, width, convs[i], strides[i], dilations[i], norm))
            self.strides.append((self.strides[-1] if i else 1) * (2 if self.pooled[i] else strides[i]))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps (B, D * 2^i, H / 2^i, W / 2^i), finest first."""
        maps = []
        for pooled, stage in zip(self.pooled, self.encoder, strict=True):
            x = stage(F.max_pool2d(x, 2) if pooled else x)
            maps.append(x)
        return maps


class UNetBackbone(UNetEncoder):
    """Encoder and decoder of the original U-Net, convolutions padded.

    Args:
        bands: bands of an image.
        base_channels: width at the finest resolution, doubled at each of the others.
        encoder_convs, decoder_convs: 3x3 convolutions per stage, finest first.
        strides: of the first convolution of each encoder stage.
        downsamples: whether 2x2 max pooling stands before each encoder stage but the first; not with a
            stride.
        encoder_dilations, decoder_dilations: of all but the first convolution of a stage.
        up: how the decoder doubles the resolution.
        norm: batch norm behind each convolution; the paper has none.
        align_corners: how maps are interpolated.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: of the decoder's maps, finest first, and the encoder's deepest last.
    """

    def __init__(
        self,
        *,
        bands: int,
        base_channels: int = 64,
        encoder_convs: Sequence[int] = (2, 2, 2, 2, 2),
        decoder_convs: Sequence[int] = (2, 2, 2, 2),
        strides: Sequence[int] = (1, 1, 1, 1, 1),
        downsamples: Sequence[bool] = (True, True, True, True),
        encoder_dilations: Sequence[int] = (1, 1, 1, 1, 1),
        decoder_dilations: Sequence[int] = (1, 1, 1, 1),
        up: UpType = "transposed",
        norm: bool = False,
        align_corners: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__(
            bands=bands,
            base_channels=base_channels,
            convs=encoder_convs,
            strides=strides,
            downsamples=downsamples,
            dilations=encoder_dilations,
            norm=norm,
        )
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for i in range(len(self.channels) - 1):
            finer, width = self.channels[i : i + 2]
            kind = up if self.pooled[i + 1] or strides[i + 1] > 1 or downsamples[i] else "none"
            self.ups.append(Up(width, finer, kind, norm=norm, align_corners=align_corners))
            self.decoder.append(
                _convolutions(2 * finer, finer, decoder_convs[i], 1, decoder_dilations[i], norm)
            )
        init_weights(self)
        set_norm_eps(self, norm_eps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps (B, D * 2^i, H / 2^i, W / 2^i), finest first."""
        skips = super().forward(x)
        maps = [skips.pop()]
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            skip = skips.pop()
            enlarged = up(maps[-1], skip.shape[-2:])
            maps.append(stage(torch.cat([skip, enlarged], dim=1)))
        return maps[::-1]


def _convolutions(
    in_channels: int, channels: int, number: int, stride: int, dilation: int, norm: bool
) -> nn.Sequential:
    layers = [ConvNormAct(in_channels, channels, stride=stride, norm=norm)]
    layers += [ConvNormAct(channels, channels, dilation=dilation, norm=norm) for _ in range(number - 1)]
    return nn.Sequential(*layers)
