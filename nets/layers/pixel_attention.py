"""Attention between the pixels of maps."""

from torch import Tensor, nn

from nets.layers.conv import ConvNormAct


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
    """Map query (B, D, h, w), key (B, D, N or n, m) and value (B, C, as key) to mean values (B, C, h, w).

    A pixel weighs the values by the softmax of its scaled products with the keys.
    """
    similarity = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # (B, h w, N)
    weights = (scale * similarity).softmax(dim=-1)
    return (value.flatten(2) @ weights.transpose(1, 2)).unflatten(2, query.shape[-2:])


def gather_pixel(x: Tensor, scores: Tensor) -> Tensor:
    """Map (B, C, h, w) and scores (B, 1, h, w) to one mean pixel (B, C, 1, 1), weighed by their softmax."""
    weights = scores.flatten(2).softmax(dim=-1)  # (B, 1, h w)
    return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)


class PixelAttention(nn.Module):
    """Each pixel of one map gathers the pixels of another that it resembles.

    Args:
        in_channels: channels of the map that asks.
        source_channels: channels of the map that answers.
        key_channels: width of queries and keys.
        value_channels: width of the values.
        num_convs: 1x1 convolutions of the queries and of the keys.
        norm: batch norm and ReLU behind each of these.
        share: queries are made as keys are, by the same convolutions.
        scaled: divide products by the square root of `key_channels`.
        pool: makes fewer keys and values.
        pool_query: makes fewer queries.
    """

    def __init__(
        self,
        in_channels: int,
        source_channels: int,
        key_channels: int,
        value_channels: int,
        *,
        num_convs: int = 1,
        norm: bool = True,
        share: bool = False,
        scaled: bool = True,
        pool: nn.Module | None = None,
        pool_query: nn.Module | None = None,
    ):
        super().__init__()

        def project(channels: int) -> nn.Sequential:
            widths = [channels] + [key_channels] * (num_convs - 1)
            return nn.Sequential(*(ConvNormAct(w, key_channels, 1, norm=norm, act=norm) for w in widths))

        self.key = project(source_channels)
        self.query = None if share else project(in_channels)
        self.value = nn.Conv2d(source_channels, value_channels, 1)
        self.scale = key_channels**-0.5 if scaled else 1.0
        self.pool, self.pool_query = pool or nn.Identity(), pool_query or nn.Identity()

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C', h', w') to (B, value_channels, h, w), the pooled queries' size."""
        query = self.pool_query((self.key if self.query is None else self.query)(x))
        key, value = self.pool(self.key(source)), self.pool(self.value(source))
        return attend(query, key, value, scale=self.scale)
