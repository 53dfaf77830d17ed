"""Swin Transformer: the authors' result for maps whose sides are no multiple of the window.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
https://arxiv.org/abs/2103.14030
"""

import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from nets.layers.margins import crop, pad, share


class PadThenShiftBlock(SwinTransformerBlock):
    """timm's block, but padded to whole windows before the shift, as the authors' segmentation code does.

    timm shifts first, so that the padding separates other neighbours.
    """

    def _attn(self, x: Tensor) -> Tensor:
        """Map (B, h, w, D) to (B, h, w, D)."""
        height, width, channels = x.shape[1:]
        window, shift = self.window_size, self.shift_size
        sides = tuple(own * share(side, own) for side, own in zip((height, width), window, strict=True))
        x = pad(x.permute(0, 3, 1, 2), sides).permute(0, 2, 3, 1)
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
        mask = self.get_attn_mask(x) if self.dynamic_mask else self.attn_mask
        windows = window_partition(x, window).flatten(1, 2)  # (B * windows, window ** 2, D)
        attended = self.attn(windows, mask=mask).unflatten(1, window)
        x = window_reverse(attended, window, x.shape[1], x.shape[2])
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2))
        x = crop(x.permute(0, 3, 1, 2), (height, width)).permute(0, 2, 3, 1)
        return x.reshape(-1, height, width, channels)


def pad_before_shift(network: nn.Module) -> None:
    """Make every Swin block of timm's in `network` pad before it shifts."""
    for module in network.modules():
        if type(module) is SwinTransformerBlock:
            # The blocks stay as timm built them; only the method differs.
            module.__class__ = PadThenShiftBlock
