"""Margins of maps, put on and cut off, so that a trace for export holds for images of every size.

Slices and `F.pad` treat sizes where there is nothing to cut off or to add in a special way, which a trace
cannot follow; choosing rows and columns by their numbers does not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def is_tracing() -> bool:
    """Return whether the network is being traced for export, by torch.export or torch.jit.trace."""
    # New in torch 2.7; before it, torch.compile cannot be told from torch.export, which costs speed only.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return exporting() or torch.jit.is_tracing()


def share(side: int, stride: int) -> int:
    """Return side / stride, rounded up."""
    # A trace does not know the sign of -(side // -stride).
    return (side + stride - 1) // stride


def at_least(side: int, least: int) -> int:
    """Return the larger of a size and a fixed number."""
    # torch.jit.trace makes tensors of sizes, and a comparison would become a fixed result.
    return side.clamp(min=least) if isinstance(side, Tensor) else torch.sym_max(side, least)


def at_most(side: int, most: int) -> int:
    """Return the smaller of a size and a fixed number."""
    return side.clamp(max=most) if isinstance(side, Tensor) else torch.sym_min(side, most)


def crop(x: Tensor, size: tuple[int, int], start: tuple[int, int] = (0, 0)) -> Tensor:
    """Map (B, C, h, w) to its part (B, C, *size) that begins at the row and column `start`."""
    (height, width), (top, left) = size, start
    if is_tracing():
        return _choose(x, *_places(x, size, start))
    return x[..., top : top + height, left : left + width]


def pad(
    x: Tensor, size: tuple[int, int], start: tuple[int, int] = (0, 0), *, replicate: bool = False
) -> Tensor:
    """Map (B, C, h, w) to (B, C, *size) with the map at the row and column `start`, and zeros around it.

    With `replicate` its border goes on instead of zeros.
    """
    (top, left), (h, w) = start, x.shape[-2:]
    if not is_tracing():
        sides = (left, size[1] - left - w, top, size[0] - top - h)
        return F.pad(x, sides, mode="replicate" if replicate else "constant")
    rows, columns = _places(x, size, (-top, -left))
    padded = _choose(x, rows.clamp(0, h - 1), columns.clamp(0, w - 1))
    if replicate:
        return padded
    inside = ((rows >= 0) & (rows < h))[:, None] & (columns >= 0) & (columns < w)
    return torch.where(inside, padded, torch.zeros((), dtype=x.dtype, device=x.device))


def _places(x: Tensor, size: tuple[int, int], start: tuple[int, int]) -> tuple[Tensor, Tensor]:
    return tuple(torch.arange(n, device=x.device) + first for n, first in zip(size, start, strict=True))


def _choose(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x.index_select(-2, rows).index_select(-1, columns)
