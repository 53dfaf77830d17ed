"""CGNet: every block sees a pixel, its surroundings and the whole image, with very few weights.

Paper: Wu et al., "CGNet: A Light-weight Context Guided Network for Semantic Segmentation", IEEE Transactions
on Image Processing 2021, https://arxiv.org/abs/1811.08201

The default is the paper's M3N21 (`blocks`: M and N). Bands: the image, pooled to a half and a quarter, is
joined to the maps of stages 1 and 2 whatever the number of its bands.

Deviations: the classifier has a bias, as MMSegmentation's; the authors' has none. Norms have the epsilon of
the authors' code, 1e-3.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.layers.conv import norm_prelu, set_norm_eps
from nets.layers.init import init_weights
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

HEAD = {"num_convs": 0, "concat_input": False, "index": (-1,)}


def _conv_norm_act(in_channels: int, channels: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, norm_prelu(channels))


class ContextGuidedBlock(nn.Module):
    """Local and surrounding features joined, then weighed by the whole image (paper, figure 3).

    Args:
        in_channels: channels of the input.
        channels: channels of the result.
        dilation: of the convolution that sees the surroundings.
        reduction: the weights are made through this share of the width.
        down: halve the resolution instead of adding the input.
    """

    def __init__(self, in_channels: int, channels: int, *, dilation: int, reduction: int, down: bool):
        super().__init__()
        self.down = down
        width = channels if down else channels // 2
        depthwise = {"groups": width, "bias": False}
        self.enter = _conv_norm_act(in_channels, width, 3 if down else 1, stride=2 if down else 1)
        self.local = nn.Conv2d(width, width, 3, padding=1, **depthwise)
        self.surrounding = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, **depthwise)
        self.norm_act = norm_prelu(2 * width)
        self.reduce = nn.Conv2d(2 * width, channels, 1, bias=False) if down else nn.Identity()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w), or half of it."""
        entered = self.enter(x)
        joint = torch.cat([self.local(entered), self.surrounding(entered)], dim=1)
        joint = self.reduce(self.norm_act(joint))
        weighed = joint * self.gate(joint.mean(dim=(2, 3)))[..., None, None]
        return weighed if self.down else x + weighed


class CGNetEncoder(nn.Module):
    """Stem and two stages of blocks (paper, figure 4 and table 1).

    Args:
        bands: bands of an image.
        widths: channels of stem and stages.
        blocks: blocks of the stages.
        dilations: of the stages.
        reductions: of the stages.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: of the three maps, finest first.
    """

    def __init__(
        self,
        *,
        bands: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        dilations: tuple[int, ...],
        reductions: tuple[int, ...],
        norm_eps: float,
    ):
        super().__init__()
        self.name = "cgnet"
        first, second, third = widths
        if min(blocks, default=0) < 1:
            raise ValueError("each stage needs a block")
        self.stem = nn.Sequential(
            _conv_norm_act(bands, first, 3, stride=2), *(_conv_norm_act(first, first, 3) for _ in range(2))
        )
        self.channels, self.strides = [first + bands, 2 * second + bands, 2 * third], [2, 4, 8]
        self.norms = nn.ModuleList(norm_prelu(channels) for channels in self.channels)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ContextGuidedBlock(
                    width if i else before, width, dilation=dilation, reduction=reduction, down=i == 0
                )
                for i in range(count)
            )
            for before, width, count, dilation, reduction in zip(
                self.channels[:2], (second, third), blocks, dilations, reductions, strict=True
            )
        )
        set_norm_eps(self, norm_eps)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps at strides 2, 4 and 8."""
        half = F.avg_pool2d(x, 3, 2, padding=1)
        quarter = F.avg_pool2d(half, 3, 2, padding=1)
        features = [self.norms[0](torch.cat([self.stem(x), half], dim=1))]
        for stage, norm, injected in zip(self.stages, self.norms[1:], ([quarter], []), strict=True):
            down = deep = stage[0](features[-1])
            for block in stage[1:]:
                deep = block(deep)
            # The order in the first stage of the authors' code differs from that in the second.
            pair = [deep, down] if injected else [down, deep]
            features.append(norm(torch.cat([*pair, *injected], dim=1)))
        return features


@register_model
def cgnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["cgnet"] = "cgnet",
    widths: tuple[int, ...] = (32, 64, 128),
    blocks: tuple[int, ...] = (3, 21),
    dilations: tuple[int, ...] = (2, 4),
    reductions: tuple[int, ...] = (8, 16),
    channels: int = 256,
    dropout: float = 0.0,
    align_corners: bool = False,
    norm_eps: float = 1e-3,
    head_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
) -> SegmentationModel:
    """CGNet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: there is one.
        widths: channels of stem and stages.
        blocks: blocks of the stages, the paper's M and N.
        dilations: of the stages.
        reductions: of the weights by the whole image, per stage.
        channels: width of the head where it has convolutions.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        norm_eps: epsilon of the backbone's batch norms.
        head_options: further arguments of the head.
        aux_heads: arguments of auxiliary FCN heads.
    """
    encoder = CGNetEncoder(
        bands=bands,
        widths=widths,
        blocks=blocks,
        dilations=dilations,
        reductions=reductions,
        norm_eps=norm_eps,
    )
    maps = encoder.channels
    return SegmentationModel(
        encoder,
        FCNDecoder(maps, channels, align_corners=align_corners, **(HEAD | (head_options or {}))),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(maps, num_classes, aux=False, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/cgnet: Cityscapes from scratch, 60k iterations, total batch 16, classes weighted.
    "paper": SGD_POLY | {"optimizer": "adam", "lr": 1e-3},
}
