"""Swin Transformer: the authors' result for maps whose sides are no multiple of the window, at every size.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
https://arxiv.org/abs/2103.14030
"""

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from nets.layers.margins import crop, is_tracing, pad, share
from nets.layers.windows import cut_windows, join_windows

APART = -100.0  # added to the logits of pixels that are neighbours by the shift alone


class PadThenShiftBlock(SwinTransformerBlock):
    """timm's block, but padded to whole windows before the shift, as the authors' segmentation code does.

    timm shifts first, so that the padding separates other neighbours.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, D) to (B, h, w, D)."""
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attn(self, x: Tensor) -> Tensor:
        """Map (B, h, w, D) to (B, h, w, D)."""
        height, width = x.shape[1:3]
        window, shift = self.window_size, self.shift_size
        sides = tuple(own * share(side, own) for side, own in zip((height, width), window, strict=True))
        x = pad(x.permute(0, 3, 1, 2), sides).permute(0, 2, 3, 1)
        shape = (x.shape[0], *sides)
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
        mask = shift_mask(x, window, shift) if any(shift) else None
        x = join_windows(self._attend(cut_windows(x, window), mask), window, shape)
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2))
        return crop(x.permute(0, 3, 1, 2), (height, width)).permute(0, 2, 3, 1)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map windows' pixels (B * windows, N, D) to (B * windows, N, D)."""
        attention = self.attn
        if mask is None or not is_tracing():
            return attention(x, mask=mask)
        # timm's view of the windows by images does not hold for a single window.
        q, k, v = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        logits = (q * attention.scale) @ k.transpose(-2, -1)  # (B * windows, heads, N, N)
        logits = logits + attention._get_rel_pos_bias() + mask[:, None]
        attended = attention.attn_drop(logits.softmax(dim=-1)) @ v
        return attention.proj_drop(attention.proj(attended.transpose(1, 2).flatten(2)))


def shift_mask(x: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Return what is added to attention inside the windows of a shifted map (B, h, w, D): (windows, N, N)."""
    rows, columns = (
        (places >= side - own).long() + (places >= side - moved)
        for side, own, moved, places in zip(
            x.shape[1:3], window, shift, (torch.arange(n, device=x.device) for n in x.shape[1:3]), strict=True
        )
    )
    regions = (3 * rows[:, None] + columns)[None, ..., None]  # (1, h, w, 1)
    if is_tracing():
        # How often one image's windows are in the batch would hold for the traced size alone.
        regions = regions.expand(x.shape[0], -1, -1, -1)
    regions = cut_windows(regions, window)  # (windows, N, 1)
    apart = regions != regions.transpose(1, 2)
    return torch.zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(apart, APART)


class EvenMerging(PatchMerging):
    """timm's merging of neighbours, traced for every size."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, D) to half the sides, rounded up, (B, h', w', D')."""
        sides = tuple(2 * share(side, 2) for side in x.shape[1:3])
        x = pad(x.permute(0, 3, 1, 2), sides).permute(0, 2, 3, 1)
        four = [x[:, i::2, j::2] for j in range(2) for i in range(2)]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))


def pad_before_shift(network: nn.Module) -> None:
    """Make every Swin block of timm's in `network` pad before it shifts; its merging traces at all sizes."""
    ours = {SwinTransformerBlock: PadThenShiftBlock, PatchMerging: EvenMerging}
    for module in network.modules():
        if type(module) in ours:
            # The modules stay as timm built them; only the methods differ.
            module.__class__ = ours[type(module)]
