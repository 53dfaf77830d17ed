"""Mix Transformer (MiT): overlapping patches, attention over a reduced sequence, convolution in the MLP.

Paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS 2021, https://arxiv.org/abs/2105.15203, section 3.1; sizes from its table 6. No position encoding, so
any image size fits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from nets.layers.init import init_weights
from nets.layers.token_map import token_map


@dataclass(frozen=True)
class MiTSize:
    """Width and number of blocks of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


MIT_SIZES = {
    "mit_b0": MiTSize((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": MiTSize((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": MiTSize((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b3": MiTSize((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit_b4": MiTSize((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit_b5": MiTSize((64, 128, 320, 512), (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values come from a map shrunk `reduction` times in each direction."""

    def __init__(self, width: int, heads: int, reduction: int, embed_eps: float, dropout: float):
        super().__init__()
        self.heads = heads
        # Queries, keys and values in one matrix, as torch.nn.MultiheadAttention lays them out.
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.dropout = dropout
        self.reduce = None
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=embed_eps)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (B, N, D) of an h x w map, N = h * w, to (B, N, D)."""
        b, n, d = x.shape
        source = x
        if self.reduce is not None:
            reduced = self.reduce(token_map(x, size))  # (B, D, h / R, w / R)
            source = self.norm(reduced.flatten(2).transpose(1, 2))  # (B, N / R^2, D)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = (
            F.linear(x, weight[:d], bias[:d]).reshape(b, n, self.heads, -1).transpose(1, 2)
        )  # (B, heads, N, D / heads)
        kv = F.linear(source, weight[d:], bias[d:]).reshape(b, source.shape[1], 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, heads, N / R^2, D / heads)
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.project(attended.transpose(1, 2).reshape(b, n, d))


class MixMLP(nn.Module):
    """Linear -> depthwise 3x3 convolution (it stands in for position encoding) -> GELU -> linear."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        hidden = MLP_RATIO * width
        self.expand = nn.Linear(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (B, N, D) of an h x w map to (B, N, D)."""
        x = self.mix(token_map(self.expand(x), size)).flatten(2)  # (B, 4 D, N)
        return self.dropout(self.contract(self.dropout(F.gelu(x.transpose(1, 2)))))


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(
        self,
        width: int,
        heads: int,
        reduction: int,
        *,
        drop_path: float,
        dropout: float,
        attention_dropout: float,
        embed_eps: float,
        block_eps: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=block_eps)
        self.attention = ReducedAttention(width, heads, reduction, embed_eps, attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=block_eps)
        self.mlp = MixMLP(width, dropout)
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (B, N, D) of an h x w map to (B, N, D)."""
        x = x + self.drop_path(self.dropout(self.attention(self.norm1(x), size)))
        return x + self.drop_path(self.mlp(self.norm2(x), size))


class Stage(nn.Module):
    """Overlapping patch embedding, blocks, norm."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        patch: int,
        stride: int,
        heads: int,
        reduction: int,
        drop_paths: list[float],
        embed_eps: float,
        **block: float,
    ):
        super().__init__()
        self.embed = nn.Conv2d(in_channels, width, patch, stride=stride, padding=patch // 2)
        self.embed_norm = nn.LayerNorm(width, eps=embed_eps)
        self.blocks = nn.ModuleList(
            Block(width, heads, reduction, drop_path=rate, embed_eps=embed_eps, **block)
            for rate in drop_paths
        )
        self.norm = nn.LayerNorm(width, eps=block["block_eps"])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        x = self.embed(x)
        size = x.shape[-2:]
        x = self.embed_norm(x.flatten(2).transpose(1, 2))  # (B, N, D)
        for block in self.blocks:
            x = block(x, size)
        return token_map(self.norm(x), size)


class MiT(nn.Module):
    """Mix Transformer encoder.

    Args:
        name: "mit_b0" to "mit_b5".
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0.
        dropout: rate of dropout behind attention and in the MLPs.
        attention_dropout: rate of dropout on the attention's weights.
        embed_eps: epsilon of the norms after patch embedding and sequence reduction.
        block_eps: epsilon of all other norms; the authors' code has 1e-5 and 1e-6, MMSegmentation twice 1e-6.

    Attributes:
        channels, strides: per feature map, finest first (strides 4, 8, 16, 32).
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int = 4,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embed_eps: float = 1e-5,
        block_eps: float = 1e-6,
    ):
        super().__init__()
        size = MIT_SIZES[name]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        self.name = name
        self.channels, self.strides = list(size.widths[-stages:]), [4, 8, 16, 32][-stages:]
        self.stages = nn.ModuleList(
            Stage(
                bands if i == 0 else size.widths[i - 1],
                width,
                patch=7 if i == 0 else 3,
                stride=4 if i == 0 else 2,
                heads=HEADS[i],
                reduction=REDUCTIONS[i],
                drop_paths=[next(rates) for _ in range(size.depths[i])],
                dropout=dropout,
                attention_dropout=attention_dropout,
                embed_eps=embed_eps,
                block_eps=block_eps,
            )
            for i, width in enumerate(size.widths)
        )
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to four maps (B, D_i, h_i, w_i), strides 4, 8, 16, 32."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[-len(self.channels) :]
