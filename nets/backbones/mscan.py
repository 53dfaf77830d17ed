"""Multi-Scale Convolutional Attention Network (MSCAN): strips of several lengths gate the features.

Paper: Guo et al., "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", NeurIPS
2022, https://arxiv.org/abs/2209.08575, section 3.1; sizes from its table 2.
"""

from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from nets.layers.init import init_weights
from nets.layers.norm import ChannelNorm


@dataclass(frozen=True)
class MSCANSize:
    """Width and number of blocks of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


MSCAN_SIZES = {
    "mscan_t": MSCANSize((32, 64, 160, 256), (3, 3, 5, 2)),
    "mscan_s": MSCANSize((64, 128, 320, 512), (2, 2, 4, 2)),
    "mscan_b": MSCANSize((64, 128, 320, 512), (3, 3, 12, 3)),
    "mscan_l": MSCANSize((64, 128, 320, 512), (3, 5, 27, 3)),
}
MLP_RATIOS = (8, 8, 4, 4)
STRIP_LENGTHS = (7, 11, 21)


class StripAttention(nn.Module):
    """Depthwise 5x5, then pairs of 1xk and kx1; their sum, mixed by 1x1, multiplies the input."""

    def __init__(self, width: int):
        super().__init__()
        self.local = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, (1, length), padding=(0, length // 2), groups=width),
                nn.Conv2d(width, width, (length, 1), padding=(length // 2, 0), groups=width),
            )
            for length in STRIP_LENGTHS
        )
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        local = self.local(x)
        return self.mix(local + sum(strip(local) for strip in self.strips)) * x


class GatedAttention(nn.Module):
    """1x1 convolution -> GELU -> strip attention -> 1x1 convolution, added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.act = nn.GELU()
        self.gate = StripAttention(width)
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        return x + self.leave(self.gate(self.act(self.enter(x))))


class ConvMLP(nn.Module):
    """1x1 -> depthwise 3x3 -> GELU -> 1x1 convolution."""

    def __init__(self, width: int, ratio: int, dropout: float):
        super().__init__()
        hidden = ratio * width
        self.expand = nn.Conv2d(width, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.contract = nn.Conv2d(hidden, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        return self.dropout(self.contract(self.dropout(self.act(self.mix(self.expand(x))))))


class Block(nn.Module):
    """Attention and MLP, each batch-normalised before, scaled per channel and added to its input."""

    def __init__(self, width: int, ratio: int, dropout: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.attention = GatedAttention(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp = ConvMLP(width, ratio, dropout)
        self.scale1 = nn.Parameter(torch.full((width,), 0.01))
        self.scale2 = nn.Parameter(torch.full((width,), 0.01))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        x = x + self.drop_path(self.scale1[:, None, None] * self.attention(self.norm1(x)))
        return x + self.drop_path(self.scale2[:, None, None] * self.mlp(self.norm2(x)))


class MSCAN(nn.Module):
    """Multi-scale convolutional attention network.

    Args:
        name: "mscan_t", "mscan_s", "mscan_b" or "mscan_l".
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0.
        dropout: rate of dropout in the MLPs.

    Attributes:
        channels, strides: per feature map, finest first (strides 4, 8, 16, 32).
    """

    def __init__(
        self, name: str, *, bands: int, stages: int = 4, drop_path: float = 0.1, dropout: float = 0.0
    ):
        super().__init__()
        size = MSCAN_SIZES[name]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        self.name = name
        self.channels, self.strides = list(size.widths[-stages:]), [4, 8, 16, 32][-stages:]
        self.embeds, self.stages, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            self.embeds.append(_stem(bands, width) if i == 0 else _halve(size.widths[i - 1], width))
            self.stages.append(
                nn.Sequential(*(Block(width, MLP_RATIOS[i], dropout, next(rates)) for _ in range(depth)))
            )
            self.norms.append(ChannelNorm(width, eps=1e-5))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps (B, D_i, h_i, w_i), strides 4, 8, 16, 32."""
        features = []
        for embed, stage, norm in zip(self.embeds, self.stages, self.norms, strict=True):
            x = norm(stage(embed(x)))
            features.append(x)
        return features[-len(self.channels) :]


def _stem(bands: int, width: int) -> nn.Sequential:
    """Two convolutions of stride 2."""
    return nn.Sequential(
        nn.Conv2d(bands, width // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(width // 2),
        nn.GELU(),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
    )


def _halve(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width))
