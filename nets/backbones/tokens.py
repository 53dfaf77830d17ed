"""A plain Vision Transformer of timm as a chain of blocks that others may look into: DINOv2 and DINOv3.

Papers: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
https://arxiv.org/abs/2304.07193, with registers: Darcet et al., "Vision Transformers Need Registers", ICLR
2024, https://arxiv.org/abs/2309.16588; Siméoni et al., "DINOv3", 2025, https://arxiv.org/abs/2508.10104
"""

from collections.abc import Sequence
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.catalogue import find_backbone
from nets.errors import UserError
from nets.layers.token_map import token_map
from nets.registry import nearest, plain

Sizes = Literal[
    "dinov2_small",
    "dinov2_base",
    "dinov2_large",
    "dinov2_giant",
    "dinov3_small",
    "dinov3_base",
    "dinov3_large",
]
# Short names -> timm's.
SIZES = {
    "dinov2_small": "vit_small_patch14_reg4_dinov2",
    "dinov2_base": "vit_base_patch14_reg4_dinov2",
    "dinov2_large": "vit_large_patch14_reg4_dinov2",
    "dinov2_giant": "vit_giant_patch14_reg4_dinov2",
    "dinov3_small": "vit_small_patch16_dinov3_qkvb",
    "dinov3_base": "vit_base_patch16_dinov3_qkvb",
    "dinov3_large": "vit_large_patch16_dinov3_qkvb",
}
KINDS = ("_reg4_dinov2", "_dinov3")


def find_transformer(name: str) -> str:
    """Return timm's name of a DINOv2 with registers, or of a DINOv3.

    Raises:
        UserError: it is another backbone, or none.
    """
    known = {plain(short): network for short, network in SIZES.items()}
    found = known.get(plain(name)) or find_backbone(name)
    if not any(kind in found for kind in KINDS):
        raise UserError(
            f"backbone {name} is given; allowed: {', '.join(SIZES)}, or timm's name of another DINOv2 with "
            f"registers or DINOv3{nearest(name, SIZES)}"
        )
    return found


class TokenChain(nn.Module):
    """The blocks of a plain Vision Transformer, with what stands before the first.

    Args:
        name: timm's name.
        bands: bands of an image.
        image_size: height and width in pixels the position embedding is made for; it is resized to others.
        patch: side of a patch in pixels.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0.
        norm_eps: epsilon of the layer norms; None is timm's.
        arguments: further arguments of timm's constructor.

    Attributes:
        channels, strides: of the map that the patches' tokens are.
        prefix: tokens before the patches'.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        image_size: Sequence[int],
        patch: int,
        drop_path: float = 0.0,
        norm_eps: float | None = None,
        arguments: dict | None = None,
    ):
        super().__init__()
        self.body = timm.create_model(
            name,
            pretrained=False,
            num_classes=0,
            in_chans=bands,
            img_size=tuple(image_size),
            patch_size=patch,
            dynamic_img_size=True,
            drop_path_rate=drop_path,
            **(arguments or {}),
        )
        self.name, self.prefix = name, self.body.num_prefix_tokens
        self.channels, self.strides = [self.body.embed_dim], [patch]
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm) and norm_eps is not None:
                layer.eps = norm_eps

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, from the first."""
        return self.body.blocks

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to [(B, D, H / patch, W / patch)], the last block's."""
        tokens, rotation, grid = self.embed(x)
        for block in self.blocks:
            tokens = self.run(block, tokens, rotation)
        return [token_map(self.body.norm(tokens)[:, self.prefix :], grid)]

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Map (B, C, H, W), sides multiples of the patch, to tokens (B, N, D), their rotation, their grid."""
        patches = self.body.patch_embed(x)  # (B, h, w, D)
        grid = tuple(patches.shape[1:3])
        tokens = patches.flatten(1, 2)
        if self.body.pos_embed is not None:
            tokens = tokens + self._positions(grid)
        before = [token.expand(x.shape[0], -1, -1) for token in (self.body.cls_token, self.body.reg_token)]
        rope = getattr(self.body, "rope", None)
        rotation = None if rope is None else rope.get_embed(shape=list(grid)).to(tokens.dtype)
        return self.body.pos_drop(torch.cat([*before, tokens], dim=1)), rotation, grid

    def run(
        self, block: nn.Module, tokens: Tensor, rotation: Tensor | None, allowed: Tensor | None = None
    ) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D) by a block; `allowed` (B, 1, N, N) is who may look at whom."""
        more = {} if rotation is None else {"rope": rotation}
        return block(tokens, attn_mask=allowed, **more)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (1, h * w, D) of the patches."""
        own, made_for = self.body.pos_embed, self.body.patch_embed.grid_size
        if tuple(grid) == tuple(made_for):
            return own
        plane = own.transpose(1, 2).unflatten(2, made_for)  # (1, D, rows, columns)
        return F.interpolate(plane, grid, mode="bicubic").flatten(2).transpose(1, 2)
