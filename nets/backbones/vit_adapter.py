"""ViT-Adapter: a plain transformer with a branch of convolutions beside it, which gives maps of four strides.

Paper: Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023,
https://arxiv.org/abs/2205.08534
"""

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from nets.backbones.adapter import STRIDES, Interaction, SpatialPrior, to_maps, to_tokens
from nets.backbones.timm_backbone import crop_maps, pad_to_multiple
from nets.backbones.vit import ViT
from nets.layers.deformable_attention import pixel_centres
from nets.layers.init import init_weights
from nets.layers.margins import crop, pad, share
from nets.layers.resize import resize
from nets.layers.windows import cut_windows, join_windows

PATCH = 16
LEVELS = 4  # maps, and interactions whose patches can be added to them
LAST_EXTRACTORS = 3


class ViTAdapter(ViT):
    """A `ViT` of patches of 16 pixels with the adapter.

    Args:
        name: "tiny", "small", "base" or "large".
        bands: bands of an image.
        interactions: blocks of the transformer in each interaction.
        image_size: side in pixels of the images that the position embedding is made for.
        layer_scale: the blocks scale their residual branches.
        windows: side in patches of each block's attention windows, 0 for attention all over the map; empty is
            0 everywhere.
        prior_channels: width of the convolutions.
        heads: of the deformable attention.
        points: places per head and map that it looks at.
        value_ratio: width of its values, relative.
        ffn_ratio: width of the extractors' feed-forward networks, relative; 0 is none.
        extra_extractors: the last interaction has two extractors more.
        add_patches: the transformer's own maps are added to the adapter's; needs four interactions.
        drop_path: rate of stochastic depth, in the transformer growing linearly from 0.
        dropout: rate of dropout in the transformer.
        attention_dropout: rate of dropout on the weights of its attention.

    Attributes:
        channels, strides: per feature map, finest first.
        pretrained_part: beginning of the names of the transformer's parameters, which are pretrained.
    """

    pretrained_part = "body."

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        interactions: tuple[int, ...],
        image_size: int,
        layer_scale: bool,
        windows: tuple[int, ...],
        prior_channels: int,
        heads: int,
        points: int,
        value_ratio: float,
        ffn_ratio: float,
        extra_extractors: bool,
        add_patches: bool,
        drop_path: float,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__(
            name,
            bands=bands,
            blocks=(sum(interactions) - 1,),
            image_size=(image_size, image_size),
            patch=PATCH,
            layer_scale=1.0 if layer_scale else None,
            drop_path=drop_path,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        width = self.channels[0]
        self.runs, self.add_patches = tuple(interactions), add_patches
        self.windows = tuple(windows) or (0,) * len(self.body.blocks)
        attention = {"heads": heads, "points": points, "value_ratio": value_ratio}
        last = len(interactions) - 1
        self.prior = SpatialPrior(bands, prior_channels, width)
        self.level_embedding = nn.Parameter(torch.randn(len(STRIDES), width))
        self.interactions = nn.ModuleList(
            Interaction(
                width,
                attention,
                extractors=LAST_EXTRACTORS if extra_extractors and i == last else 1,
                hidden=int(width * ffn_ratio),
                drop_path=drop_path,
            )
            for i in range(len(interactions))
        )
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        init_weights(self.up)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(LEVELS))
        self.channels, self.strides = [width] * LEVELS, [4, *STRIDES]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps (B, D, h_i, w_i), finest first."""
        size = x.shape[-2:]
        x = pad_to_multiple(x, STRIDES[-1])
        finest, *prior = self.prior(x)
        sizes = [tuple(level.shape[-2:]) for level in prior]
        levels = [to_tokens(level) + place for level, place in zip(prior, self.level_embedding, strict=True)]
        plane = self.body.patch_embed.proj(x)  # (B, D, h, w)
        patches, levels = self._interact(to_tokens(plane), torch.cat(levels, dim=1), sizes)
        levels = to_maps(levels, sizes)
        maps = [finest + self.up(levels[0]), *levels]
        if self.add_patches:
            maps = [each + resize(own, each.shape[-2:]) for each, own in zip(maps, patches, strict=True)]
        return crop_maps(
            [norm(each) for norm, each in zip(self.norms, maps, strict=True)], self.strides, size
        )

    def _interact(
        self, patches: Tensor, levels: Tensor, sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], Tensor]:
        """Map patches (B, N, D) and the prior's tokens (B, M, D) to maps (B, D, h, w) and tokens (B, M, D).

        There is a map of the patches per interaction. `sizes` are (h, w) of the prior's maps, of which the
        second has the patches' grid.
        """
        grid = sizes[1]
        of_patches = pixel_centres([grid], device=patches.device)
        of_levels = pixel_centres(sizes, device=patches.device)
        patches, maps, block = self._start(patches, grid), [], 0
        for interaction, count in zip(self.interactions, self.runs, strict=True):
            patches = interaction.injector(patches, levels, of_patches, sizes)
            for i in range(block, block + count):
                patches = self._run_block(i, patches, grid)
            block += count
            for extractor in interaction.extractors:
                levels = extractor(levels, patches, of_levels, sizes, grid)
            maps += to_maps(patches, [grid])
        return maps, levels

    def _run_block(self, index: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D) by one block."""
        block, window = self.body.blocks[index], self.windows[index]
        if not window:
            return block(x)
        x = x + block.drop_path1(block.ls1(attend_in_windows(block.attn, block.norm1(x), grid, window)))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def attend_in_windows(attention: Attention, x: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Map tokens (B, N, D) of a `grid` (h, w) to (B, N, D) by attention inside windows of so many patches.

    Where the map ends inside a window, tokens whose queries, keys and values are zero take part, as in the
    authors' code.
    """
    sides = tuple(window * share(side, window) for side in grid)
    plane = pad(to_maps(attention.qkv(x), [grid])[0], sides).permute(0, 2, 3, 1)  # (B, h, w, 3 D)
    windows = cut_windows(plane, (window, window))  # (B * windows, window ** 2, 3 D)
    q, k, v = windows.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(
        q, k, v, dropout_p=attention.attn_drop.p if attention.training else 0.0
    )
    together = attended.transpose(1, 2).flatten(2)
    plane = join_windows(together, (window, window), (x.shape[0], *sides)).permute(0, 3, 1, 2)  # (B, D, h, w)
    return attention.proj_drop(attention.proj(to_tokens(crop(plane, grid))))
