"""The parts of ViT-Adapter beside the transformer: what convolutions see goes in, and comes out refined.

Paper: Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023,
https://arxiv.org/abs/2205.08534, section 3 and figure 4
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct
from nets.layers.deformable_attention import DeformableAttention
from nets.layers.init import init_weights
from nets.layers.token_map import token_map

Sizes = Sequence[tuple[int, int]]
# Strides of the maps that the interactions work on; the finest one of the prior stays outside.
STRIDES = (8, 16, 32)
NORM_EPS = 1e-6


class SpatialPrior(nn.Module):
    """Convolutions that give maps at strides 4, 8, 16 and 32 of one width (paper, figure 4c).

    Args:
        bands: bands of an image.
        inner: width of the stem.
        channels: width of the maps.
    """

    def __init__(self, bands: int, inner: int, channels: int):
        super().__init__()
        stem = [ConvNormAct(bands, inner, stride=2), ConvNormAct(inner, inner), ConvNormAct(inner, inner)]
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, 2, padding=1))
        widths = (inner, 2 * inner, 4 * inner, 4 * inner)
        self.halvings = nn.ModuleList(
            ConvNormAct(before, after, stride=2) for before, after in pairwise(widths)
        )
        self.project = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to four (B, D, H / stride, W / stride), finest first."""
        features = [self.stem(x)]
        for halving in self.halvings:
            features.append(halving(features[-1]))
        return [project(feature) for project, feature in zip(self.project, features, strict=True)]


class ConvFeedForward(nn.Module):
    """Linear -> depthwise 3x3 convolution on each map -> GELU -> linear.

    Args:
        channels: width.
        hidden: width in between.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand, self.contract = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        init_weights(self)

    def forward(self, x: Tensor, sizes: Sizes) -> Tensor:
        """Map the tokens (B, N, D) of maps with the given (h, w) to (B, N, D)."""
        maps = to_maps(self.expand(x), sizes)
        mixed = torch.cat([to_tokens(self.mix(each)) for each in maps], dim=1)  # (B, N, hidden)
        return self.contract(F.gelu(mixed))


class Injector(nn.Module):
    """The transformer's tokens ask those of the prior (paper, section 3.4).

    Args:
        channels: width.
        attention: arguments of `DeformableAttention` beside width and levels.
    """

    def __init__(self, channels: int, attention: dict):
        super().__init__()
        self.query_norm, self.token_norm = (nn.LayerNorm(channels, eps=NORM_EPS) for _ in range(2))
        self.attention = DeformableAttention(channels, levels=len(STRIDES), **attention)
        # Zero: the adapter starts without an effect on the pretrained transformer.
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, queries: Tensor, tokens: Tensor, centres: Tensor, sizes: Sizes) -> Tensor:
        """Map queries (B, Q, D) and tokens (B, N, D) of maps with the given (h, w) to (B, Q, D)."""
        attended = self.attention(self.query_norm(queries), self.token_norm(tokens), centres, sizes)
        return queries + self.gamma * attended


class Extractor(nn.Module):
    """The prior's tokens ask those of the transformer, and go through a feed-forward network.

    Args:
        channels: width.
        attention: arguments of `DeformableAttention` beside width and levels.
        hidden: width of the feed-forward network; 0 is none.
        drop_path: its rate of stochastic depth.
    """

    def __init__(self, channels: int, attention: dict, *, hidden: int, drop_path: float):
        super().__init__()
        self.query_norm, self.token_norm = (nn.LayerNorm(channels, eps=NORM_EPS) for _ in range(2))
        self.attention = DeformableAttention(channels, levels=1, **attention)
        self.ffn = None
        if hidden:
            self.ffn, self.ffn_norm = (
                ConvFeedForward(channels, hidden),
                nn.LayerNorm(channels, eps=NORM_EPS),
            )
            self.drop_path = DropPath(drop_path)

    def forward(
        self, queries: Tensor, tokens: Tensor, centres: Tensor, sizes: Sizes, grid: tuple[int, int]
    ) -> Tensor:
        """Map queries (B, Q, D) of maps with the given (h, w) and tokens (B, N, D) of `grid` to (B, Q, D)."""
        x = queries + self.attention(self.query_norm(queries), self.token_norm(tokens), centres, [grid])
        return x if self.ffn is None else x + self.drop_path(self.ffn(self.ffn_norm(x), sizes))


class Interaction(nn.Module):
    """Injector and extractors around some blocks of the transformer (paper, figure 4b).

    Args:
        channels: width.
        attention: arguments of `DeformableAttention` beside width and levels.
        extractors: number of extractors.
        hidden: width of the extractors' feed-forward networks; 0 is none.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, channels: int, attention: dict, *, extractors: int, hidden: int, drop_path: float):
        super().__init__()
        self.injector = Injector(channels, attention)
        self.extractors = nn.ModuleList(
            Extractor(channels, attention, hidden=hidden, drop_path=drop_path) for _ in range(extractors)
        )


def to_tokens(x: Tensor) -> Tensor:
    """Map (B, C, h, w) to (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, sizes: Sizes) -> list[Tensor]:
    """Map the tokens (B, N, C) of maps with the given (h, w) to these maps (B, C, h, w)."""
    parts = tokens.split([height * width for height, width in sizes], dim=1)
    return [token_map(part, size) for part, size in zip(parts, sizes, strict=True)]
