"""Vision Transformer (ViT): an image is a sequence of patches. timm's blocks, any image size.

Papers: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR
2021, https://arxiv.org/abs/2010.11929; the sizes tiny and small: Touvron et al., "Training Data-efficient
Image Transformers" (DeiT), ICML 2021, https://arxiv.org/abs/2012.12877; scales and relative positions: Bao et
al., BEiT, ICLR 2022, https://arxiv.org/abs/2106.08254

timm alone will not do: it resizes the position embedding with an antialiasing filter, which the segmentation
networks built on ViT do not, and relative positions for one image size only.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nets.backbones.relative_positions import (
    QueryValueLinear,
    attend,
    distance_index,
    relative_bias,
    table_rows,
)
from nets.errors import UserError
from nets.layers.margins import is_tracing, pad, share


@dataclass(frozen=True)
class ViTSize:
    """Width, blocks and heads, and timm's name of the pretrained network."""

    width: int
    depth: int
    heads: int
    pretrained: str


VIT_SIZES = {
    "tiny": ViTSize(192, 12, 3, "vit_tiny_patch16_384"),
    "small": ViTSize(384, 12, 6, "vit_small_patch16_384"),
    "base": ViTSize(768, 12, 12, "vit_base_patch16_384"),
    "large": ViTSize(1024, 24, 16, "vit_large_patch16_384"),
}


def _check_blocks(name: str, blocks: tuple[int, ...], depth: int) -> None:
    if not blocks or blocks != tuple(sorted(set(blocks))) or blocks[0] < 0 or blocks[-1] >= depth:
        given = ",".join(map(str, blocks))
        raise UserError(f"layers={given} is given; ViT {name} has blocks 0 to {depth - 1}, in order")


class ViT(nn.Module):
    """Vision Transformer whose maps of several blocks are given, all of one stride.

    Args:
        name: "tiny", "small", "base" or "large".
        bands: bands of an image.
        blocks: blocks whose maps are given, from 0, ascending.
        image_size: height and width in pixels the position embedding and the relative positions are made for;
            they are resized to others.
        patch: side of a patch in pixels.
        padding: images are padded to a multiple of it on the right and below ("corner"), on all sides
            ("same"), or what is no whole patch is left out: always ("none"), or where the patches are then
            those that the positions are made for ("fit"; not in a trace, which is one for all sizes).
        patch_bias: the projection of the patches has a bias.
        patch_norm: it is followed by a layer norm.
        class_token: a class token takes part in the attention.
        position_embedding: every patch has one.
        position_interpolation: how it is resized; "antialiased" is bicubic with timm's filter.
        relative_positions: the attention's scores have learned biases; needs the class token.
        layer_scale: start of the scale on each residual branch; None is no scale.
        qkv_bias: queries, keys and values have a bias, queries and values only, or none.
        project_bias: the projection behind the attention has one.
        pre_norm: layer norm before the first block.
        final_norm: layer norm behind the last block, where that one's map is given.
        mlp_ratio: width of the MLPs, relative.
        width, depth, heads: instead of the size's.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0.
        dropout: rate of dropout behind position embedding, attention and MLP.
        attention_dropout: rate of dropout on the attention's weights.
        norm_eps: epsilon of the layer norms.

    Attributes:
        channels, strides: per feature map.
        grid: rows and columns of patches that the positions are made for.
        depth: blocks of the size, among them those behind the last map, which are not built.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        blocks: tuple[int, ...],
        image_size: tuple[int, ...] = (512, 512),
        patch: int = 16,
        padding: Literal["corner", "same", "none", "fit"] = "corner",
        patch_bias: bool = True,
        patch_norm: bool = False,
        class_token: bool = False,
        position_embedding: bool = True,
        position_interpolation: Literal["bicubic", "bilinear", "antialiased"] = "bicubic",
        relative_positions: bool = False,
        layer_scale: float | None = None,
        qkv_bias: Literal["all", "query_value", "none"] = "all",
        project_bias: bool = True,
        pre_norm: bool = False,
        final_norm: bool = False,
        mlp_ratio: float = 4.0,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        size = VIT_SIZES[name]
        width, self.depth = width or size.width, depth or size.depth
        _check_blocks(name, blocks, self.depth)
        self.name, self.blocks = size.pretrained, tuple(blocks)
        self.padding, self.patch = padding, patch
        self.position_interpolation, self.relative_positions = position_interpolation, relative_positions
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        self.channels, self.strides = [width] * len(blocks), [patch] * len(blocks)
        norm = partial(nn.LayerNorm, eps=norm_eps)
        self.body = VisionTransformer(
            img_size=tuple(image_size),
            patch_size=patch,
            in_chans=bands,
            num_classes=0,
            global_pool="",
            embed_dim=width,
            depth=blocks[-1] + 1,  # blocks behind the last map would have no gradient
            num_heads=heads or size.heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias == "all",
            init_values=layer_scale,
            class_token=class_token,
            pos_embed="learn" if position_embedding else "none",
            pre_norm=pre_norm,
            final_norm=final_norm and blocks[-1] + 1 == self.depth,
            dynamic_img_size=True,
            pos_drop_rate=dropout,
            proj_drop_rate=dropout,
            attn_drop_rate=attention_dropout,
            norm_layer=norm,
            embed_norm_layer=norm if patch_norm else None,
        )
        proj = self.body.patch_embed.proj
        if not patch_bias:
            proj.bias = None
        elif proj.bias is None:  # timm has none in front of a norm
            proj.bias = nn.Parameter(torch.zeros(width))
        rates = torch.linspace(0, drop_path, self.depth, device="cpu").tolist()
        for block, rate in zip(self.body.blocks, rates, strict=False):
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
            self._change_attention(block.attn, qkv_bias, project_bias)

    def find_layers(self) -> dict[str, int]:
        """Return the layer of each parameter: 0 is what lies before the blocks, which count from 1."""
        layers = {}
        for name, _ in self.named_parameters():
            if name.startswith("body."):
                block = re.match(r"body\.blocks\.(\d+)\.", name)
                behind = self.depth + 1 if name.startswith("body.norm.") else 0
                layers[name] = int(block[1]) + 1 if block else behind
        return layers

    def _change_attention(self, attention: nn.Module, qkv_bias: str, project_bias: bool) -> None:
        """Give timm's attention the biases that are asked for."""
        if qkv_bias == "query_value":
            attention.qkv = QueryValueLinear(attention.qkv.in_features)
            nn.init.trunc_normal_(attention.qkv.weight, std=0.02)
        if not project_bias:
            attention.proj.bias = None
        if self.relative_positions:
            table = torch.zeros(table_rows(self.grid), attention.num_heads)
            attention.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to one (B, D, H / patch, W / patch) per chosen block, rounded up."""
        return [feature for feature, _ in self.encode(x)]

    def encode(self, x: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Map (B, C, H, W) to (map (B, D, h, w), class token (B, D) or None) of each chosen block."""
        embed = self.body.patch_embed
        plane = embed.proj(self._padded(x))  # (B, D, h, w)
        h, w = plane.shape[-2:]
        tokens = self._start(embed.norm(plane.flatten(2).transpose(1, 2)), (h, w))  # (B, 1 + N, D)
        index = distance_index((h, w), x.device) if self.relative_positions else None
        results = []
        for i, block in enumerate(self.body.blocks):
            tokens = self._run(block, tokens, (h, w), index)
            if i + 1 == self.depth:
                tokens = self.body.norm(tokens)
            if i in self.blocks:
                feature = tokens[:, -h * w :].transpose(1, 2).unflatten(2, (h, w)).contiguous()
                results.append((feature, tokens[:, 0] if self.body.cls_token is not None else None))
        return results

    def _padded(self, x: Tensor) -> Tensor:
        """Return the images with whole patches."""
        grid = tuple(side // self.patch for side in x.shape[-2:])
        if self.padding == "none" or (self.padding == "fit" and not is_tracing() and grid == self.grid):
            return x  # the convolution leaves out what is no whole patch
        size = tuple(self.patch * share(side, self.patch) for side in x.shape[-2:])
        halves = [(wanted - side) // 2 for wanted, side in zip(size, x.shape[-2:], strict=True)]
        return pad(x, size, tuple(halves) if self.padding == "same" else (0, 0))

    def _start(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map patches (B, N, D) to the tokens that the first block sees."""
        positions = self.body.pos_embed
        if positions is not None:
            tokens = tokens + self._positions(grid)
        if self.body.cls_token is not None:
            token = self.body.cls_token if positions is None else self.body.cls_token + positions[:, :1]
            tokens = torch.cat([token.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, 1 + N, D)
        return self.body.norm_pre(self.body.pos_drop(tokens))

    def _run(self, block: nn.Module, x: Tensor, grid: tuple[int, int], index: Tensor | None) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D) by one block."""
        if index is None:
            return block(x)
        bias = relative_bias(block.attn.relative_position_bias_table, self.grid, grid, index)
        x = x + block.drop_path1(block.ls1(attend(block.attn, block.norm1(x), bias)))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (1, h * w, D) of the patches."""
        own = self.body.pos_embed[:, -self.grid[0] * self.grid[1] :]
        # A trace must hold for every size; resized to its own the embedding stays what it is.
        if not is_tracing() and tuple(grid) == self.grid:
            return own
        plane = own.transpose(1, 2).reshape(1, -1, *self.grid)  # (1, D, rows, columns)
        antialias = self.position_interpolation == "antialiased"
        mode = "bicubic" if antialias else self.position_interpolation
        return F.interpolate(plane, grid, mode=mode, antialias=antialias).flatten(2).transpose(1, 2)
