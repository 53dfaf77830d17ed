"""The transformer decoder of Mask2Former: each query looks only where its last mask is.

Paper: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
https://arxiv.org/abs/2112.01527, section 3.2.
"""

import torch
from torch import Tensor, nn

from nets.layers.attention import QueryLayer, mask_mlp
from nets.layers.init import start_uniform
from nets.layers.position import sine_positions
from nets.layers.resize import resize


@torch.no_grad()
def attended_pixels(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Map mask logits (B, Q, h, w) to where each query looks on a map of `size`: (B, Q, N), true is inside.

    A query whose mask is empty looks everywhere.
    """
    inside = (resize(mask_logits, size).sigmoid() >= 0.5).flatten(2)
    return inside | ~inside.any(dim=-1, keepdim=True)


class MaskedAttentionDecoder(nn.Module):
    """Queries -> a class and a mask of each, before the first layer and behind every one.

    Args:
        in_channels: channels of the maps.
        channels: width.
        mask_channels: width of the mask features.
        num_classes: number of classes; one more stands for no object.
        queries: number of queries.
        levels: number of maps, which the layers look at in turn.
        layers: number of layers.
        heads: heads of the attentions.
        feedforward: hidden width of the feed-forward layers.
        dropout: rate of dropout.
        pre_norm: see `QueryLayer`.
        project: give each map a 1x1 convolution even where it has the right width.
        positions: arguments of `sine_positions` other than its defaults.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        mask_channels: int,
        num_classes: int,
        *,
        queries: int,
        levels: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        pre_norm: bool,
        project: bool,
        positions: dict | None = None,
    ):
        super().__init__()
        self.positions = dict(positions or {})
        self.query_features = nn.Parameter(torch.randn(queries, channels))
        self.query_positions = nn.Parameter(torch.randn(queries, channels))
        self.level_embedding = nn.Parameter(torch.randn(levels, channels))
        self.project = nn.ModuleList(
            nn.Conv2d(in_channels, channels, 1) if project or in_channels != channels else nn.Identity()
            for _ in range(levels)
        )
        self.layers = nn.ModuleList(
            QueryLayer(channels, heads=heads, feedforward=feedforward, dropout=dropout, pre_norm=pre_norm)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.mask_embedding = mask_mlp(channels, mask_channels)
        start_uniform(self.project)

    def forward(self, maps: list[Tensor], mask_features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map the (B, C, h_i, w_i) and mask features (B, M, h, w) to class logits and mask logits.

        Both are lists of layers + 1, the bare queries' first: (B, Q, K + 1) and (B, Q, h, w).
        """
        sizes = [x.shape[-2:] for x in maps]
        tokens = [
            layer(x).flatten(2).transpose(1, 2) + embedding  # (B, N_i, D)
            for layer, x, embedding in zip(self.project, maps, self.level_embedding, strict=True)
        ]
        positions = [
            sine_positions(size, x.shape[-1], device=x.device, **self.positions).flatten(0, 1).to(x.dtype)
            for size, x in zip(sizes, tokens, strict=True)
        ]
        x = self.query_features.repeat(mask_features.shape[0], 1, 1)  # (B, Q, D)
        predictions = [self.predict(x, mask_features)]
        for i, layer in enumerate(self.layers):
            level = i % len(maps)
            inside = attended_pixels(predictions[-1][1], sizes[level])
            x = layer(x, self.query_positions, tokens[level], positions[level], inside)
            predictions.append(self.predict(x, mask_features))
        class_logits, mask_logits = zip(*predictions, strict=True)
        return list(class_logits), list(mask_logits)

    def predict(self, x: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Map queries (B, Q, D) and mask features (B, M, h, w) to (B, Q, K + 1) and (B, Q, h, w)."""
        x = self.norm(x)
        masks = torch.einsum("bqm,bmhw->bqhw", self.mask_embedding(x), mask_features)
        return self.classifier(x), masks
