"""Means over the cells of a grid, and over windows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.margins import at_most, is_tracing, share


class GridMean(nn.Module):
    """Mean of each cell of a grid with `cells` cells along either side."""

    def __init__(self, cells: int):
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, cells, cells)."""
        return grid_mean(x, self.cells)


def grid_mean(x: Tensor, cells: int) -> Tensor:
    """Map (B, C, h, w) to the means of a grid's cells (B, C, cells, cells); neighbours may share pixels."""
    if cells == 1 or not is_tracing():
        return F.adaptive_avg_pool2d(x, cells)
    # ONNX has no such pooling; where a cell begins depends on the image's size.
    rows, columns = (_cell_weights(x, side, cells) for side in x.shape[-2:])
    return rows @ x @ columns.transpose(0, 1)


def window_mean(x: Tensor, window: int, steps: tuple[int, int]) -> Tensor:
    """Map (B, C, h, w) to the means (B, C, h', w') of square windows, which are no larger than the map.

    Args:
        x: map.
        window: side in pixels.
        steps: from window to window, down and right.
    """
    if not is_tracing():
        return F.avg_pool2d(x, tuple(min(window, side) for side in x.shape[-2:]), steps)
    sides = zip(x.shape[-2:], steps, strict=True)
    rows, columns = (_window_weights(x, side, at_most(side, window), step) for side, step in sides)
    return rows @ x @ columns.transpose(0, 1)


def _window_weights(x: Tensor, side: int, window: int, step: int) -> Tensor:
    """Return the weights (windows, side) of a line's pixels in each window."""
    first = step * torch.arange((side - window) // step + 1, device=x.device)[:, None]
    place = torch.arange(side, device=x.device)
    inside = ((place >= first) & (place < first + window)).to(x.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def _cell_weights(x: Tensor, side: int, cells: int) -> Tensor:
    """Return the weights (cells, side) of a line's pixels in each cell."""
    cell = torch.arange(cells, device=x.device)[:, None]
    first, end = (cell * side) // cells, share((cell + 1) * side, cells)
    place = torch.arange(side, device=x.device)
    inside = (place >= first) & (place < end)
    return inside.to(x.dtype) / (end - first).to(x.dtype)
