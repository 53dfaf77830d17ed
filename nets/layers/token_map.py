"""From the tokens of a transformer to a map."""

from torch import Tensor

from nets.layers.margins import is_tracing


def token_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Map tokens (B, h * w, D), row by row, to a map (B, D, h, w)."""
    x = tokens.transpose(1, 2).unflatten(2, size)
    # A traced convolution asks in which order the numbers lie, and then holds for maps of that kind alone.
    return x.contiguous() if is_tracing() else x
