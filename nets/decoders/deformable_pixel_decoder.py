"""The pixel decoder of Mask2Former: deformable attention among the deep maps, a pyramid step to the others.

Paper: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
https://arxiv.org/abs/2112.01527, section 4.1; the attention: Zhu et al., "Deformable DETR", ICLR 2021,
https://arxiv.org/abs/2010.04159.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers.attention import FeedForward
from nets.layers.deformable_attention import DeformableAttention, pixel_centres
from nets.layers.init import start_uniform
from nets.layers.position import sine_positions
from nets.layers.resize import resize


class DeformableLayer(nn.Module):
    """Deformable attention of all pixels to all maps, then a feed-forward, each normalised behind its sum."""

    def __init__(
        self, channels: int, *, heads: int, levels: int, points: int, feedforward: int, dropout: float
    ):
        super().__init__()
        self.attention = DeformableAttention(channels, heads=heads, levels=levels, points=points)
        self.feedforward = FeedForward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, centres: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """Map tokens (B, N, D) of maps with the given (h, w) to (B, N, D)."""
        x = self.norms[0](x + self.dropout(self.attention(x + positions, x, centres, sizes)))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


class DeformablePixelDecoder(nn.Module):
    """Maps of a backbone -> the deepest ones refined, and one fine map of mask features.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: width.
        mask_channels: width of the mask features.
        levels: how many of the deepest maps attend to each other; the rest joins by a feature pyramid.
        layers: number of attention layers.
        heads: heads of the attention.
        points: places per head and map.
        feedforward: hidden width of the feed-forward layers.
        dropout: rate of dropout in the attention layers.
        norm_groups: groups of the group norms.
        positions: arguments of `sine_positions` other than its defaults.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        mask_channels: int,
        *,
        levels: int,
        layers: int,
        heads: int,
        points: int,
        feedforward: int,
        dropout: float,
        norm_groups: int,
        positions: dict | None = None,
    ):
        super().__init__()
        self.positions = dict(positions or {})
        deepest_first = list(in_channels)[::-1]
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1), nn.GroupNorm(norm_groups, channels))
            for width in deepest_first[:levels]
        )
        self.level_encoding = nn.Parameter(torch.randn(levels, channels))
        self.layers = nn.ModuleList(
            DeformableLayer(
                channels, heads=heads, levels=levels, points=points, feedforward=feedforward, dropout=dropout
            )
            for _ in range(layers)
        )
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.GroupNorm(norm_groups, channels))
            for width in deepest_first[levels:]
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.GroupNorm(norm_groups, channels),
                nn.ReLU(inplace=True),
            )
            for _ in deepest_first[levels:]
        )
        self.mask_features = nn.Conv2d(channels, mask_channels, 1)
        self._start()

    def _start(self) -> None:
        """Start the convolutions as the authors do; the layers have started themselves."""
        start_uniform(self)
        for projection in self.project:
            nn.init.xavier_uniform_(projection[0].weight)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Map the (B, C_i, h_i, w_i) to `levels` maps (B, D, h, w), deepest first, and (B, M, h_0, w_0)."""
        deepest_first = features[::-1]
        maps = [layer(x) for layer, x in zip(self.project, deepest_first, strict=False)]
        sizes = [tuple(x.shape[-2:]) for x in maps]
        width, device = maps[0].shape[1], maps[0].device
        positions = torch.cat(
            [
                sine_positions(size, width, device=device, **self.positions).flatten(0, 1) + encoding
                for size, encoding in zip(sizes, self.level_encoding, strict=True)
            ]
        )
        centres = pixel_centres(sizes, device=device)
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)  # (B, N, D), all pixels
        positions = positions.to(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, positions, centres, sizes)
        refined = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        maps = [x.unflatten(-1, size) for x, size in zip(refined, sizes, strict=True)]
        finest = maps[-1]
        for lateral, smooth, x in zip(self.laterals, self.smooth, deepest_first[len(maps) :], strict=True):
            finest = smooth(lateral(x) + resize(finest, x.shape[-2:]))
        return maps, self.mask_features(finest)
