"""Windows of maps, cut and put together again, so that a trace for export holds for maps of every size."""

import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor

from nets.layers.margins import is_tracing


def cut_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Map (B, h, w, D), whose sides are multiples of the window's, to windows' pixels (B * windows, N, D)."""
    if not is_tracing():
        return window_partition(x, window).flatten(1, 2)
    # A trace of the usual view and permutation holds for no map that is one window high or wide.
    (tall, wide), across = window, x.shape[2] // window[1]
    place = torch.arange(x.shape[0] * x.shape[1] * x.shape[2], device=x.device)
    number, inside = place // (tall * wide), place % (tall * wide)
    line = number // across  # of windows, counted on from image to image
    row = line * tall + inside // wide
    # ONNX has no remainder of a division by a size.
    column = (number - line * across) * wide + inside % wide
    return x.flatten(0, 2).index_select(0, row * x.shape[2] + column).unflatten(0, (-1, tall * wide))


def join_windows(windows: Tensor, window: tuple[int, int], shape: tuple[int, int, int]) -> Tensor:
    """Map windows' pixels (B * windows, N, D) to the map (B, h, w, D) of `shape` (B, h, w)."""
    (tall, wide), (_, height, width) = window, shape
    if not is_tracing():
        return window_reverse(windows.unflatten(1, window), window, height, width)
    place = torch.arange(shape[0] * height * width, device=windows.device)
    row = place // width  # counted on from image to image
    column = place - row * width
    number = row // tall * (width // wide) + column // wide
    inside = row % tall * wide + column % wide
    return windows.flatten(0, 1).index_select(0, number * (tall * wide) + inside).unflatten(0, shape)
