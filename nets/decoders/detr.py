"""The decoders of MaskFormer: a feature pyramid for the pixels, DETR's transformer for the queries.

Papers: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
NeurIPS 2021, https://arxiv.org/abs/2107.06278, section 3.4; Carion et al., "End-to-End Object Detection with
Transformers" (DETR), ECCV 2020, https://arxiv.org/abs/2005.12872.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.attention import Attention, FeedForward, QueryLayer, mask_mlp
from nets.layers.conv import ConvGroupNorm
from nets.layers.init import start_uniform
from nets.layers.position import sine_positions


class EncoderLayer(nn.Module):
    """Attention among all pixels, then a feed-forward, each normalised behind its sum."""

    def __init__(self, channels: int, *, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.attention = Attention(channels, heads, dropout)
        self.feedforward = FeedForward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Map tokens (B, N, D), compared with their `positions` (N, D), to (B, N, D)."""
        placed = x + positions
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x)))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


class PyramidPixelDecoder(nn.Module):
    """A feature pyramid that ends in one fine map of mask features (paper, section 3.4).

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: width.
        mask_channels: width of the mask features.
        layers: attention layers on the deepest map; 0 leaves them out.
        heads: heads of their attention.
        feedforward: hidden width of their feed-forward.
        dropout: rate of dropout in them.
        norm_groups: groups of the group norms.
        positions: arguments of `sine_positions` other than its defaults.

    Attributes:
        out_channels: of the map that the queries look at.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        mask_channels: int,
        *,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        norm_groups: int,
        positions: dict | None = None,
    ):
        super().__init__()
        *finer, deepest = in_channels
        self.positions = dict(positions or {})
        self.project = nn.Conv2d(deepest, channels, 1) if layers else None
        self.layers = nn.ModuleList(
            EncoderLayer(channels, heads=heads, feedforward=feedforward, dropout=dropout)
            for _ in range(layers)
        )
        self.out_channels = channels if layers else deepest
        self.laterals = nn.ModuleList(
            ConvGroupNorm(width, channels, 1, norm_groups=norm_groups, act=False) for width in finer
        )
        self.smooth = nn.ModuleList(
            ConvGroupNorm(channels, channels, 3, norm_groups=norm_groups) for _ in finer
        )
        self.deepest = ConvGroupNorm(self.out_channels, channels, 3, norm_groups=norm_groups)
        self.mask_features = nn.Conv2d(channels, mask_channels, 3, padding=1)
        start_uniform(self)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the (B, C_i, h_i, w_i) to the deepest map (B, D, h_3, w_3) and (B, M, h_0, w_0)."""
        memory = features[-1]
        if self.project is not None:
            memory = self.refine(self.project(memory))
        x = self.deepest(memory)
        for i in range(len(self.laterals) - 1, -1, -1):
            lateral = self.laterals[i](features[i])
            x = self.smooth[i](lateral + F.interpolate(x, lateral.shape[-2:], mode="nearest"))
        return memory, self.mask_features(x)

    def refine(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w) by attention among all pixels."""
        size = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, D)
        positions = sine_positions(size, x.shape[1], device=x.device, **self.positions).flatten(0, 1)
        for layer in self.layers:
            tokens = layer(tokens, positions.to(x.dtype))
        return tokens.transpose(1, 2).unflatten(-1, size)


class QueryDecoder(nn.Module):
    """DETR's decoder: queries look at each other and at the deepest map; a class and a mask of each.

    Args:
        in_channels: channels of the map.
        channels: width.
        mask_channels: width of the mask features.
        num_classes: number of classes; one more stands for no object.
        queries: number of queries.
        layers: number of layers.
        heads: heads of the attentions.
        feedforward: hidden width of the feed-forward layers.
        dropout: rate of dropout.
        project: give the map a 1x1 convolution even where it has the right width.
        positions: arguments of `sine_positions` other than its defaults.

    Raises:
        ValueError: no layer.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        mask_channels: int,
        num_classes: int,
        *,
        queries: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        project: bool,
        positions: dict | None = None,
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"{layers} layers of the queries' decoder; it needs one")
        self.positions = dict(positions or {})
        needed = project or in_channels != channels
        self.project = nn.Conv2d(in_channels, channels, 1) if needed else nn.Identity()
        self.query_positions = nn.Parameter(torch.randn(queries, channels))
        self.layers = nn.ModuleList(
            QueryLayer(channels, heads=heads, feedforward=feedforward, dropout=dropout, self_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.mask_embedding = mask_mlp(channels, mask_channels)
        start_uniform(self)

    def forward(self, x: Tensor, mask_features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map (B, C, h, w) and mask features (B, M, h_0, w_0) to class logits and mask logits.

        Both are lists of the layers' results: (B, Q, K + 1) and (B, Q, h_0, w_0).
        """
        x = self.project(x)
        b, width, *size = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, D)
        positions = sine_positions(size, width, device=x.device, **self.positions).flatten(0, 1).to(x.dtype)
        queries = x.new_zeros(b, *self.query_positions.shape)  # (B, Q, D)
        class_logits, mask_logits = [], []
        for layer in self.layers:
            queries = layer(queries, self.query_positions, tokens, positions)
            normed = self.norm(queries)
            class_logits.append(self.classifier(normed))
            masks = torch.einsum("bqm,bmhw->bqhw", self.mask_embedding(normed), mask_features)
            mask_logits.append(masks)
        return class_logits, mask_logits
