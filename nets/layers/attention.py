"""Attention of queries to tokens, and the layers that follow it in transformers."""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017, https://arxiv.org/abs/1706.03762, section 3.2).

    Args:
        channels: width, a multiple of `heads`.
        heads: number of heads.
        dropout: rate of dropout on the attention's weights.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.project = (nn.Linear(channels, channels) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            # As torch.nn.MultiheadAttention, whose three matrices are one of 3 D rows.
            nn.init.xavier_uniform_(layer.weight, gain=0.5**0.5)
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Map queries (B, Q, D), keys and values (B, N, D) to (B, Q, D).

        `allowed` (B, Q, N) is true where a query may look; every query needs one such place.
        """
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q or N, D / heads)
            for layer, x in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if allowed is None else allowed[:, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.project(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear -> ReLU -> linear.

    Args:
        channels: width.
        hidden: width in between.
        dropout: rate of dropout in between.
    """

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.expand, self.contract = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.expand, self.contract):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.contract(self.dropout(F.relu(self.expand(x))))


class QueryLayer(nn.Module):
    """Attention of queries to a map and among themselves, then a feed-forward.

    Args:
        channels: width.
        heads: heads of both attentions.
        feedforward: hidden width of the feed-forward.
        dropout: rate of dropout.
        pre_norm: normalise before each of the three instead of behind its sum.
        self_first: the queries look at each other before they look at the map, as in DETR.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        feedforward: int,
        dropout: float,
        pre_norm: bool = False,
        self_first: bool = False,
    ):
        super().__init__()
        self.cross_attention = Attention(channels, heads, dropout)
        self.self_attention = Attention(channels, heads, dropout)
        self.feedforward = FeedForward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.pre_norm, self.self_first = pre_norm, self_first

    def forward(
        self, x: Tensor, own: Tensor, tokens: Tensor, positions: Tensor, inside: Tensor | None = None
    ) -> Tensor:
        """Map queries (B, Q, D) to (B, Q, D).

        `own` (Q, D) is added to the queries and `positions` (N, D) to the tokens (B, N, D) where they are
        compared; `inside` (B, Q, N) is where each query looks, everywhere without it.
        """
        keys = tokens + positions
        steps = [
            lambda x: self.cross_attention(x + own, keys, tokens, inside),
            lambda x: self.self_attention(x + own, x + own, x),
            self.feedforward,
        ]
        if self.self_first:
            steps[:2] = steps[1::-1]
        for step, norm in zip(steps, self.norms, strict=True):
            x = x + self.dropout(step(norm(x))) if self.pre_norm else norm(x + self.dropout(step(x)))
        return x


def mask_mlp(channels: int, mask_channels: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return three linear layers that make of a query the weights of its mask."""
    return nn.Sequential(
        nn.Linear(channels, channels),
        act(),
        nn.Linear(channels, channels),
        act(),
        nn.Linear(channels, mask_channels),
    )
