"""The non-local block: a map plus what every pixel gathers from all others."""

from typing import Literal

from torch import Tensor, nn

from nets.layers.conv import ConvNormAct
from nets.layers.init import start_at_zero
from nets.layers.pixel_attention import attend

Mode = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


class NonLocal(nn.Module):
    """Weighted mean of all pixels, added to each (Wang et al., https://arxiv.org/abs/1711.07971, section 3).

    Args:
        channels: channels of the map.
        reduction: the block works with this share of the channels.
        scaled: "embedded_gaussian" divides products by the square root of their width.
        mode: how two pixels are compared (section 3.2).
    """

    def __init__(self, channels: int, *, reduction: int, scaled: bool, mode: Mode):
        super().__init__()
        width = max(channels // reduction, 1)
        self.mode = mode
        self.scale = width**-0.5 if scaled else 1.0
        self.value = nn.Conv2d(channels, width, 1)
        if mode != "gaussian":
            self.query, self.key = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        if mode == "concatenation":
            self.compare = nn.Conv2d(2 * width, 1, 1, bias=False)
        self.project = ConvNormAct(width, channels, 1, act=False)
        start_at_zero(self.project.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return x + self.project(self.gather(x))

    def gather(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the weighted means (B, D, h, w)."""
        value = self.value(x)
        if self.mode == "gaussian":
            return attend(x, x, value)
        query, key = self.query(x), self.key(x)
        if self.mode == "embedded_gaussian":
            return attend(query, key, value, scale=self.scale)
        if self.mode == "dot_product":
            return multiply(query, key, value)
        # The weights of the joined pair split into one part for each of the two.
        of_query, of_key = self.compare.weight.flatten(1).chunk(2, dim=1)  # (1, D)
        sums = (of_query @ query.flatten(2)).transpose(1, 2) + of_key @ key.flatten(2)  # (B, N, N)
        means = value.flatten(2) @ sums.relu().transpose(1, 2) / sums.shape[-1]
        return means.unflatten(2, x.shape[-2:])


def multiply(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Map query, key (B, D, h, w) and value (B, C, h, w) to means (B, C, h, w), weighed by plain products."""
    # Values times keys first: without a softmax no matrix of all pairs is needed.
    pairs = value.flatten(2) @ key.flatten(2).transpose(1, 2)  # (B, C, D)
    means = pairs @ query.flatten(2) / (key.shape[-2] * key.shape[-1])
    return means.unflatten(2, query.shape[-2:])
