"""Means over the cells of a grid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.margins import is_tracing, share


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


def _cell_weights(x: Tensor, side: int, cells: int) -> Tensor:
    """Return the weights (cells, side) of a line's pixels in each cell."""
    cell = torch.arange(cells, device=x.device)[:, None]
    first, end = (cell * side) // cells, share((cell + 1) * side, cells)
    place = torch.arange(side, device=x.device)
    inside = (place >= first) & (place < end)
    return inside.to(x.dtype) / (end - first).to(x.dtype)
