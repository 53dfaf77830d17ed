"""Twins: transformers that attend within windows and to a summary of the whole map. timm's parts, any size.

Paper: Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", NeurIPS 2021,
https://arxiv.org/abs/2104.13840

timm alone will not do: it cuts off what is no whole patch, where the segmentation networks pad; it lets the
padding take part in the attention of a window, where the authors' segmentation code
(https://github.com/Meituan-AutoML/Twins) masks it; and it has no norm behind the stages of SVT.
"""

import torch
import torch.nn.functional as F
from timm.models.twins import LocallyGroupedAttn
from torch import Tensor, nn

from nets.backbones.staged import check_stages
from nets.backbones.timm_backbone import create_features, pad_to_multiple
from nets.layers.margins import is_tracing, pad, share
from nets.layers.token_map import token_map


class MaskedWindowAttention(LocallyGroupedAttn):
    """timm's attention within windows, in which no pixel attends to padding.

    As in the authors' code, that is so where a map is padded on the right and below. Where it is padded on
    one side only, their mask covers everything, and the padding takes part.
    """

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (B, h * w, D) of a map of that size to (B, h * w, D)."""
        (batch, _, width), (h, w), side = x.shape, size, self.ws
        rows, columns = share(h, side), share(w, side)
        x = x.transpose(1, 2).unflatten(2, (h, w))  # (B, D, h, w)
        x = pad(x, (rows * side, columns * side))
        x = x.unflatten(3, (columns, side)).unflatten(2, (rows, side))
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, side * side, width)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        x = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._mask(h, w, x.device),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )  # (B, windows, heads, side * side, D / heads)
        x = x.transpose(2, 3).reshape(batch, rows, columns, side, side, width).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, width)[:, :h, :w].reshape(batch, h * w, width)
        return self.proj_drop(self.proj(x))

    def _mask(self, h: int, w: int, device: torch.device) -> Tensor | None:
        """Return which pixels see each other, (windows, 1, side ** 2, side ** 2); None is all."""
        side = self.ws
        rows, columns = share(h, side), share(w, side)
        if not is_tracing() and (h % side == 0 or w % side == 0):
            return None
        padded_rows = torch.arange(rows * side, device=device) >= h
        padded_columns = torch.arange(columns * side, device=device) >= w
        # Of use in a trace, which must hold for every size.
        both = padded_rows[-1:] & padded_columns[-1:]
        outside = (padded_rows[:, None] | padded_columns) & both  # (rows * side, columns * side)
        outside = outside.unflatten(1, (columns, side)).unflatten(0, (rows, side)).transpose(1, 2)
        outside = outside.reshape(rows * columns, 1, side * side)
        return outside[..., None] == outside[..., None, :]


class Twins(nn.Module):
    """The last `stages` feature maps of a Twins-PCPVT or Twins-SVT.

    Args:
        name: timm's name.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all four.
        stage_norm: layer norm behind each stage; None is as the authors have it: SVT has, PCPVT has not.
        drop_path: rate of stochastic depth at the last block.
        dropout: rate of dropout behind the patches, attention and in the MLPs.
        attention_dropout: rate of dropout on the attention's weights.
        norm_eps: epsilon of all layer norms; None is timm's, 1e-6 in the blocks and 1e-5 elsewhere.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        stage_norm: bool | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm_eps: float | None = None,
    ):
        super().__init__()
        rates = {"proj_drop_rate": dropout, "pos_drop_rate": dropout, "attn_drop_rate": attention_dropout}
        self.body = create_features(name, bands, {**rates, "drop_path_rate": drop_path})
        self.name = name
        channels, strides = self.body.feature_info.channels(), self.body.feature_info.reduction()
        self.count = check_stages(name, stages, len(channels))
        self.channels, self.strides = channels[-self.count :], strides[-self.count :]
        with_norm = name.startswith("twins_svt") if stage_norm is None else stage_norm
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels) if with_norm else None
        for module in self.modules():
            if type(module) is LocallyGroupedAttn:
                # The module stays as timm built it; only the method differs.
                module.__class__ = MaskedWindowAttention
            if isinstance(module, nn.LayerNorm) and norm_eps is not None:
                module.eps = norm_eps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        network, features = self.body.model, []
        for i, (embed, drop) in enumerate(zip(network.patch_embeds, network.pos_drops, strict=True)):
            x = pad_to_multiple(x, embed.patch_size[0])
            tokens, size = embed(x)  # (B, h * w, D)
            tokens = drop(tokens)
            for j, block in enumerate(network.blocks[i]):
                tokens = block(tokens, size)
                if j == 0:
                    tokens = network.pos_block[i](tokens, size)
            if self.norms is not None:
                tokens = self.norms[i](tokens)
            x = token_map(tokens, size)  # (B, D, h, w)
            features.append(x.contiguous())
        return features[-self.count :]
