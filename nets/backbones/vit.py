"""Vision Transformer (ViT): an image is a sequence of patches. timm's blocks, any image size.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR
2021, https://arxiv.org/abs/2010.11929

timm alone will not do: it resizes the position embedding with an antialiasing filter, which the segmentation
networks built on ViT do not.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class ViTSize:
    """Width, blocks and heads, and timm's name of the pretrained network."""

    width: int
    depth: int
    heads: int
    pretrained: str


VIT_SIZES = {
    "base": ViTSize(768, 12, 12, "vit_base_patch16_384"),
    "large": ViTSize(1024, 24, 16, "vit_large_patch16_384"),
}


class ViT(nn.Module):
    """Vision Transformer whose maps of several blocks are given, all of one stride.

    Args:
        name: "base" or "large".
        bands: bands of an image.
        blocks: blocks whose maps are given, from 0, ascending.
        image_size: height and width in pixels the position embedding is made for; it is resized to others.
        patch: side of a patch in pixels; images are padded to a multiple of it on the right and below.
        patch_bias: the projection of the patches has a bias.
        class_token: a class token takes part in the attention.
        position_interpolation: how the position embedding is resized.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0.
        dropout: rate of dropout behind position embedding, attention and MLP.
        attention_dropout: rate of dropout on the attention's weights.
        norm_eps: epsilon of the layer norms.

    Attributes:
        channels, strides: per feature map.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        blocks: tuple[int, ...],
        image_size: tuple[int, ...] = (512, 512),
        patch: int = 16,
        patch_bias: bool = True,
        class_token: bool = False,
        position_interpolation: Literal["bicubic", "bilinear"] = "bicubic",
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        size = VIT_SIZES[name]
        self.name, self.blocks = size.pretrained, tuple(blocks)
        self.position_interpolation = position_interpolation
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        self.channels, self.strides = [size.width] * len(blocks), [patch] * len(blocks)
        self.body = VisionTransformer(
            img_size=tuple(image_size),
            patch_size=patch,
            in_chans=bands,
            num_classes=0,
            global_pool="",
            embed_dim=size.width,
            depth=blocks[-1] + 1,  # blocks behind the last map would have no gradient
            num_heads=size.heads,
            class_token=class_token,
            final_norm=False,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            pos_drop_rate=dropout,
            proj_drop_rate=dropout,
            attn_drop_rate=attention_dropout,
            norm_layer=partial(nn.LayerNorm, eps=norm_eps),
        )
        if not patch_bias:
            self.body.patch_embed.proj.bias = None
        rates = torch.linspace(0, drop_path, size.depth, device="cpu").tolist()
        for block, rate in zip(self.body.blocks, rates, strict=False):
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to one (B, D, H / patch, W / patch) per chosen block, rounded up."""
        tokens = self.body.patch_embed(x)  # (B, h, w, D)
        b, h, w, width = tokens.shape
        tokens = tokens.flatten(1, 2) + self._positions(h, w)  # (B, N, D)
        if self.body.cls_token is not None:
            token = self.body.cls_token + self.body.pos_embed[:, :1]
            tokens = torch.cat([token.expand(b, -1, -1), tokens], dim=1)  # (B, 1 + N, D)
        tokens = self.body.pos_drop(tokens)
        features = []
        for i, block in enumerate(self.body.blocks):
            tokens = block(tokens)
            if i in self.blocks:
                patches = tokens[:, -h * w :]
                features.append(patches.transpose(1, 2).reshape(b, width, h, w))
        return features

    def _positions(self, h: int, w: int) -> Tensor:
        """Return the position embedding (1, h * w, D) of the patches."""
        own = self.body.pos_embed[:, -self.grid[0] * self.grid[1] :]
        if (h, w) == self.grid:
            return own
        plane = own.transpose(1, 2).reshape(1, -1, *self.grid)  # (1, D, rows, columns)
        return F.interpolate(plane, (h, w), mode=self.position_interpolation).flatten(2).transpose(1, 2)
