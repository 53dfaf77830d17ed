"""Swin, ConvNeXt and PoolFormer for dense prediction: each map has a norm, as in their authors' networks."""

from torch import Tensor, nn

from nets.backbones.timm_backbone import TimmBackbone
from nets.layers.norm import ChannelNorm

NORMS = (nn.LayerNorm, nn.GroupNorm)


class NormedBackbone(TimmBackbone):
    """A timm network, its maps normalised as its blocks do it.

    That is a layer norm over the channels, or a group norm of one group (PoolFormer).

    Args:
        name: timm's name.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all.
        drop_path: rate of stochastic depth at the last block.
        dropout: rate of dropout behind attention and in the MLPs.
        attention_dropout: rate of dropout on the attention's weights.
        norm_eps: epsilon of all norms; None is timm's (1e-5 for Swin and PoolFormer, 1e-6 for ConvNeXt).
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm_eps: float | None = None,
    ):
        super().__init__(name, bands=bands, stages=stages, drop_path=drop_path)
        own = next(m for m in self.modules() if isinstance(m, NORMS))
        if isinstance(own, nn.GroupNorm):
            norms = (nn.GroupNorm(own.num_groups, width, eps=own.eps) for width in self.channels)
        else:
            norms = (ChannelNorm(width, eps=own.eps) for width in self.channels)
        self.norms = nn.ModuleList(norms)
        for path, module in self.named_modules():
            if isinstance(module, NORMS) and norm_eps is not None:
                module.eps = norm_eps
            if isinstance(module, nn.Dropout):
                module.p = attention_dropout if path.endswith("attn_drop") else dropout

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        return [norm(feature) for norm, feature in zip(self.norms, super().forward(x), strict=True)]
