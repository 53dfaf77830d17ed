"""Backbones that are a chain of parts, each ending in a feature map."""

from collections.abc import Sequence

from torch import Tensor, nn

from nets.errors import UserError


def check_stages(name: str, stages: int | None, available: int) -> int:
    """Return the number of feature maps to give.

    Raises:
        UserError: the backbone has fewer.
    """
    if stages is not None and not 1 <= stages <= available:
        raise UserError(
            f"backbone {name} has {available} feature maps, {stages} are asked for; choose another backbone"
        )
    return stages or available


class StagedBackbone(nn.Module):
    """A chain of parts of which the last `stages` give their results.

    Args:
        name: the catalogue's.
        parts: one module per feature map, finest first.
        channels, strides: of these maps.
        stages: number of feature maps, counted from the deepest; None is all.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[nn.Module],
        *,
        channels: Sequence[int],
        strides: Sequence[int] = (2, 4, 8, 16, 32),
        stages: int | None = None,
    ):
        super().__init__()
        count = check_stages(name, stages, len(parts))
        self.name = name
        self.parts = nn.ModuleList(parts)
        self.channels, self.strides = list(channels)[-count:], list(strides)[-count:]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        features = []
        for part in self.parts:
            x = part(x)
            features.append(x)
        return features[-len(self.channels) :]
