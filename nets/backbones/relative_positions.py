"""Learned biases of attention that depend on where a patch lies relative to another, for any grid of patches.

Paper: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, https://arxiv.org/abs/2106.08254;
the bias: Raffel et al., JMLR 2020, https://arxiv.org/abs/1910.10683

A table has a row per distance in rows and columns, row by row, then three rows: from the class token to a
patch, from a patch to the class token, from the class token to itself; each row has a number per head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.margins import is_tracing

# The rows of a table that concern the class token.
EXTRA = 3


def table_rows(grid: tuple[int, int]) -> int:
    """Return how many rows the table of a grid has."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + EXTRA


def fit_table(table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Map the table (L, heads) of the grid `own` to that of another grid, bicubic."""
    if not is_tracing() and own == grid:
        return table
    sides, wanted = ([2 * side - 1 for side in each] for each in (own, grid))
    plane = table[:-EXTRA].transpose(0, 1).unflatten(1, sides)[None]  # (1, heads, rows, columns)
    plane = F.interpolate(plane, size=tuple(wanted), mode="bicubic")
    return torch.cat([plane[0].flatten(1).transpose(0, 1), table[-EXTRA:]])


def distance_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the table's row for each pair of tokens (1 + N, 1 + N), the class token first, queries first."""
    (h, w), sides = grid, [torch.arange(side, device=device) for side in grid]
    rows, columns = (
        each[:, None] - each + side - 1 for each, side in zip(sides, grid, strict=True)
    )  # (h, h), (w, w)
    patches = rows[:, None, :, None] * (2 * w - 1) + columns[None, :, None]  # (h, w, h, w)
    patches = patches.flatten(2).flatten(0, 1)  # (N, N)
    first = (2 * h - 1) * (2 * w - 1)
    patches = torch.cat([torch.full_like(patches[:, :1], first + 1), patches], dim=1)
    token = torch.cat(
        [torch.full_like(patches[:1, :1], first + 2), torch.full_like(patches[:1, 1:], first)], 1
    )
    return torch.cat([token, patches])


def relative_bias(table: Tensor, own: tuple[int, int], grid: tuple[int, int], index: Tensor) -> Tensor:
    """Map the table (L, heads) of the grid `own` to biases (1, heads, 1 + N, 1 + N) on another grid."""
    return fit_table(table, own, grid)[index].permute(2, 0, 1)[None]


def attend(attention: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """Map tokens (B, N, D) to (B, N, D) by timm's attention, its scores changed by `bias`."""
    query, key, value = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    x = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias.to(query.dtype),
        dropout_p=attention.attn_drop.p if attention.training else 0.0,
    )  # (B, heads, N, D / heads)
    # A copy in any case: a trace must not rely on the strides that one of several kernels gives.
    x = x.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return attention.proj_drop(attention.proj(x.flatten(2)))


class QueryValueLinear(nn.Linear):
    """Queries, keys and values in one matrix; keys have no bias, which the softmax would cancel."""

    def __init__(self, channels: int):
        super().__init__(channels, 3 * channels, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, 3 D)."""
        return F.linear(x, self.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))
