"""Swin with a layer of semantic attention behind each stage, whose scores per class are a first segmentation.

Paper: Jain et al., "SeMask: Semantically Masked Transformers for Semantic Segmentation", ICCV Workshops 2023,
https://arxiv.org/abs/2112.12782
"""

import torch
from torch import Tensor, nn

from nets.backbones.normed import NormedBackbone
from nets.backbones.timm_backbone import crop_maps, pad_to_multiple
from nets.layers.margins import crop, pad, share
from nets.layers.windows import cut_windows, join_windows

DROPOUT = 0.1  # behind each semantic attention, the authors' code


class SemanticAttention(nn.Module):
    """Attention between tokens whose queries and keys are scores per class.

    Args:
        channels: width of the tokens.
        classes: number of classes.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.query, self.key = nn.Linear(channels, classes), nn.Linear(channels, classes)
        self.value, self.project = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.dropout = nn.Dropout(DROPOUT)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in (self.query, self.key, self.value, self.project):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, N, D) to tokens (B, N, D) and scores per class (B, N, K)."""
        scores = self.query(x)
        # Not scaled, unlike the usual attention.
        weights = (scores @ self.key(x).transpose(-2, -1)).softmax(dim=-1)  # (B, N, N)
        attended = self.dropout(self.project(weights @ self.value(x)))
        return x + self.gamma * attended, scores


class SemanticLayer(nn.Module):
    """Layer norm -> semantic attentions, inside windows or all over the map.

    Args:
        channels: width of the map.
        classes: number of classes.
        blocks: attentions in a row.
        window: side of a window in pixels of the map; None is the whole map.
    """

    def __init__(self, channels: int, classes: int, *, blocks: int, window: int | None):
        super().__init__()
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(SemanticAttention(channels, classes) for _ in range(blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, h, w, D) to a map (B, h, w, D) and the last attention's scores (B, h, w, K)."""
        h, w = x.shape[1:3]
        x = self.norm(x)
        if self.window is None:
            x, scores = self._attend(x.flatten(1, 2))
            return x.unflatten(1, (h, w)), scores.unflatten(1, (h, w))
        side = (self.window, self.window)
        sides = (self.window * share(h, self.window), self.window * share(w, self.window))
        # Zeros that are not masked: they take part, as in the authors' code.
        padded = pad(x.permute(0, 3, 1, 2), sides).permute(0, 2, 3, 1)
        windows = cut_windows(padded, side)  # (B * windows, window ** 2, D)
        together = (join_windows(y, side, (x.shape[0], *sides)) for y in self._attend(windows))
        x, scores = (crop(y.permute(0, 3, 1, 2), (h, w)).permute(0, 2, 3, 1) for y in together)
        return x, scores

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x
        for block in self.blocks:
            x, scores = block(x)
        return x, scores


class SeMaskSwin(NormedBackbone):
    """Swin whose stages end in a `SemanticLayer`.

    Args:
        name: timm's name of a Swin.
        bands: bands of an image.
        classes: number of classes.
        blocks: semantic attentions behind each stage.
        window: side of the windows of the semantic attentions; None is Swin's.
        global_stages: so many of the deepest stages have semantic attention all over the map.
        drop_path: rate of stochastic depth at the last block.
        dropout: rate of dropout behind Swin's attention and in its MLPs.
        attention_dropout: rate of dropout on the weights of Swin's attention.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        classes: int,
        blocks: tuple[int, ...],
        window: int | None,
        global_stages: int,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ):
        super().__init__(
            name, bands=bands, drop_path=drop_path, dropout=dropout, attention_dropout=attention_dropout
        )
        self.stages = [part for part in self.body if part in self.body.return_layers]
        window = window or self.body[self.stages[0]].blocks[0].window_size[0]
        windowed = len(self.stages) - global_stages
        self.semantic = nn.ModuleList(
            SemanticLayer(width, classes, blocks=count, window=window if i < windowed else None)
            for i, (width, count) in enumerate(zip(self.channels, blocks, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps (B, C_i, h_i, w_i), finest first; in training the scores of each follow.

        The scores are (B, K, h_i, w_i).
        """
        size = x.shape[-2:]
        x = pad_to_multiple(x, self.divisor)
        features, scores = [], []
        for name, part in self.body.items():
            x = part(x)  # (B, h, w, D)
            if name in self.stages:
                i = len(features)
                x, classes = self.semantic[i](x)
                features.append(self.norms[i](x.permute(0, 3, 1, 2)))
                scores.append(classes.permute(0, 3, 1, 2))
        features = crop_maps(features, self.strides, size)
        return [*features, *crop_maps(scores, self.strides, size)] if self.training else features
