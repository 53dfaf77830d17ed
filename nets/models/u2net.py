"""U2-Net: a U-Net each of whose stages is a small U-Net, so that fine maps see far too.

Paper: Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Pattern
Recognition 2020, https://arxiv.org/abs/2005.09007; the authors' code: https://github.com/xuebinqin/U-2-Net

Sizes: "full" has 44 million parameters, "small" is the authors' u2netp of 1.1 million.

Deviations: softmax over the classes instead of a sigmoid for the object; the authors' weights, of one class,
become those of two, of which the background's scores are zero.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.side_outputs import SideOutputModel
from nets.layers.conv import ConvNormAct
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.registry import register_model

# Heights of the stages' U-Nets, finest first; the dilated ones do not pool (paper, table 1).
HEIGHTS = (7, 6, 5, 4, 4, 4)
DILATED = (False, False, False, False, True, True)
# Inner and outer width per stage of the encoder and, without the deepest, of the decoder, finest first.
WIDTHS = {
    "full": (
        ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
        ((16, 64), (32, 64), (64, 128), (128, 256), (256, 512)),
    ),
    "small": (((16, 64),) * 6, ((16, 64),) * 5),
}


def _conv(in_channels: int, channels: int, dilation: int = 1) -> ConvNormAct:
    return ConvNormAct(in_channels, channels, 3, dilation=dilation, bias=True)


class ResidualUBlock(nn.Module):
    """A convolution, and a U-Net on its result that is added to it (paper, figure 2e).

    Args:
        in_channels: channels of the input.
        inner: width of the U-Net.
        channels: width of the result.
        height: levels of the U-Net.
        dilated: dilations of 1, 2, 4 and 8 instead of pooling.
    """

    def __init__(self, in_channels: int, inner: int, channels: int, height: int, *, dilated: bool):
        super().__init__()
        self.dilated = dilated
        rates = [2**i if dilated else 1 for i in range(height - 1)]
        self.entry = _conv(in_channels, channels)
        self.down = nn.ModuleList(
            _conv(inner if i else channels, inner, rate) for i, rate in enumerate(rates)
        )
        self.bottom = _conv(inner, inner, 2 ** (height - 1) if dilated else 2)
        self.up = nn.ModuleList(
            _conv(2 * inner, inner if i else channels, rate) for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        x = entered = self.entry(x)
        skips = []
        for i, conv in enumerate(self.down):
            x = conv(x if i == 0 or self.dilated else halve(x))
            skips.append(x)
        x = self.bottom(x)
        for conv, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = conv(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
        return x + entered


def halve(x: Tensor) -> Tensor:
    """Map (B, C, h, w) to (B, C, h / 2, w / 2), rounded up, by max pooling."""
    return F.max_pool2d(x, 2, ceil_mode=True)


class U2Encoder(nn.Module):
    """Six stages with max pooling between them.

    Args:
        bands: bands of an image.
        widths: inner and outer width per stage.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(self, *, bands: int, widths: Sequence[tuple[int, int]]):
        super().__init__()
        self.name = "u2net"
        self.channels = [outer for _, outer in widths]
        self.strides = [2**i for i in range(len(widths))]
        before = [bands, *self.channels]
        self.stages = nn.ModuleList(
            ResidualUBlock(before[i], *widths[i], HEIGHTS[i], dilated=DILATED[i]) for i in range(len(widths))
        )
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, H / 2^i, W / 2^i), finest first."""
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(halve(x) if i else x)
            maps.append(x)
        return maps


class U2Decoder(nn.Module):
    """Five stages that join the enlarged coarser map and the encoder's.

    Args:
        in_channels: channels of the encoder's maps, finest first.
        widths: inner and outer width per stage, finest first.

    Attributes:
        channels: of the maps, finest first; the last is the encoder's own.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[tuple[int, int]]):
        super().__init__()
        self.channels = [*(outer for _, outer in widths), in_channels[-1]]
        self.stages = nn.ModuleList(
            ResidualUBlock(in_channels[i] + self.channels[i + 1], *widths[i], HEIGHTS[i], dilated=DILATED[i])
            for i in range(len(widths))
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the encoder's (B, C_i, h_i, w_i) to as many (B, D_i, h_i, w_i)."""
        maps = [features[-1]]
        for stage, skip in zip(reversed(self.stages), features[-2::-1], strict=True):
            maps.append(stage(torch.cat([resize(maps[-1], skip.shape[-2:]), skip], dim=1)))
        return maps[::-1]


@register_model
def u2net(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["full", "small"] = "full",
    dropout: float = 0.0,
    align_corners: bool = False,
    aux: bool = False,
) -> SideOutputModel:
    """U2-Net, full or small.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size.
        dropout: rate of the channel dropout before the levels' classifiers.
        align_corners: how scores and logits are enlarged.
        aux: training gives the levels' scores too; they are joined in any case.
    """
    down, up = WIDTHS[backbone]
    encoder = U2Encoder(bands=bands, widths=down)
    return SideOutputModel(
        encoder,
        U2Decoder(encoder.channels, up),
        bands=bands,
        num_classes=num_classes,
        kernel=3,
        aux=aux,
        dropout=dropout,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # Paper, sections 3.3 and 4.3: all seven outputs have the weight 1; DUTS, batch 12, 600k iterations.
    "paper": {
        "optimizer": "adam",
        "lr": 1e-3,
        "scheduler": "constant",
        "batch_size": 12,
        "loss": "ce",
        "aux_weight": 1.0,
        "model_options": {"aux": True},
    },
}
