"""DDRNet: a branch at an eighth of the resolution and a deep one tell each other what they see.

Paper: Hong, Pan, Sun, Jia, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of
Road Scenes", 2021, https://arxiv.org/abs/2101.06085

Deviations: none in the network. What is enlarged gets the fine branch's own size, so any image size fits; the
authors' code and MMSegmentation's take an eighth of the image, rounded down.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.dual_resolution import (
    NormFirstDecoder,
    NormFirstHead,
    PyramidAggregation,
    create_stage,
    create_stem,
)
from nets.layers.conv import ConvNormAct
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class Size(NamedTuple):
    """Width of the stem; blocks of its two stages, of the parts of stage 3 and of stage 4; head's width."""

    width: int
    stem: tuple[int, int]
    stages: tuple[int, ...]
    head: int


# Paper, table 1; each part of stages 3 and 4 ends in a fusion.
SIZES = {
    "23slim": Size(32, (2, 2), (2, 2), 64),
    "23": Size(64, (2, 2), (2, 2), 128),
    "39": Size(64, (3, 4), (3, 3, 3), 256),
}
FUSED, MIDDLE = range(2)  # maps of the backbone


class BilateralStage(nn.Module):
    """A part of both branches, then what each tells the other (paper, figure 4).

    Args:
        in_channels: channels of the deep branch.
        deep: width of its stage.
        fine: width of the fine branch.
        blocks: of each branch.
        stride: of the deep branch.
        halvings: between the branches.
        align_corners: how the deep map is enlarged.
    """

    def __init__(
        self,
        in_channels: int,
        deep: int,
        fine: int,
        *,
        blocks: int,
        stride: int,
        halvings: int,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.deep = create_stage(in_channels, deep, blocks, stride=stride)
        self.fine = create_stage(fine, fine, blocks)
        self.compress = ConvNormAct(deep, fine, 1, act=False)
        widths = [fine * 2**i for i in range(halvings)] + [deep]
        self.down = nn.Sequential(
            *(ConvNormAct(a, b, stride=2, act=i < halvings - 1) for i, (a, b) in enumerate(pairwise(widths)))
        )

    def forward(self, deep: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, h', w') and (B, D, h, w) to the deep and the fine map, both without a ReLU."""
        deep, fine = self.deep(F.relu(deep)), self.fine(F.relu(fine))
        told = self.compress(F.relu(deep))
        deep = deep + self.down(F.relu(fine))
        return deep, fine + resize(told, fine.shape[-2:], align_corners=self.align_corners)


class DDRNetBackbone(nn.Module):
    """Stem, both branches with their fusions, and pyramid aggregation of the deep one (paper, figure 4).

    Args:
        size: blocks.
        bands: bands of an image.
        width: of the stem.
        pyramid_channels: width of each average in the aggregation.
        align_corners: how deep maps are enlarged.

    Attributes:
        channels, strides: of the result and of the fine branch behind stage 3.
    """

    def __init__(self, size: Size, *, bands: int, width: int, pyramid_channels: int, align_corners: bool):
        super().__init__()
        self.name = "ddrnet"
        self.align_corners = align_corners
        fine, before = 2 * width, 2 * width
        self.stem = create_stem(bands, width, size.stem)
        self.stages = nn.ModuleList()
        *thirds, last = size.stages
        for i, blocks in enumerate((*thirds, last)):
            fourth = i == len(thirds)
            deep = (8 if fourth else 4) * width
            self.stages.append(
                BilateralStage(
                    before,
                    deep,
                    fine,
                    blocks=blocks,
                    stride=2 if fourth or i == 0 else 1,
                    halvings=2 if fourth else 1,
                    align_corners=align_corners,
                )
            )
            before = deep
        self.fine_last = create_stage(fine, fine, 1, bottleneck=True)
        self.deep_last = create_stage(before, before, 1, stride=2, bottleneck=True)
        self.pyramid = PyramidAggregation(2 * before, pyramid_channels, 2 * fine)
        self.channels, self.strides = [2 * fine, fine], [8, 8]
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the result and the fine branch behind stage 3, both at stride 8."""
        deep = fine = self.stem(x)
        maps = []
        for stage in self.stages:
            deep, fine = stage(deep, fine)
            maps.append(fine)
        fine = self.fine_last(F.relu(fine))
        deep = self.pyramid(self.deep_last(F.relu(deep)))
        deep = resize(deep, fine.shape[-2:], align_corners=self.align_corners)
        return [fine + deep, maps[-2]]


@register_model
def ddrnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["23slim", "23", "39"] = "23slim",
    width: int | None = None,
    pyramid_channels: int = 128,
    channels: int | None = None,
    dropout: float = 0.0,
    align_corners: bool = False,
    inner_align_corners: bool = False,
    aux: bool = False,
) -> SegmentationModel:
    """DDRNet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size.
        width: of the stem; None is the size's.
        pyramid_channels: width of each average in the aggregation.
        channels: width of the head; None is the size's.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        inner_align_corners: how the deep branch's maps are enlarged.
        aux: head on the fine branch behind stage 3, in training.
    """
    size = SIZES[backbone]
    encoder = DDRNetBackbone(
        size,
        bands=bands,
        width=width or size.width,
        pyramid_channels=pyramid_channels,
        align_corners=inner_align_corners,
    )
    maps, shape = encoder.channels, {"channels": channels or size.head}
    aux_head = [NormFirstHead(maps, num_classes, index=MIDDLE, align_corners=align_corners, **shape)]
    return SegmentationModel(
        encoder,
        NormFirstDecoder(maps, index=FUSED, **shape),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=aux_head if aux else (),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/ddrnet: Cityscapes, 120k iterations, total batch 12; classes weighted there. Hard
    # pixels are 131,072 of a GPU's six crops of 1024 x 1024, or more.
    "paper": SGD_POLY
    | {
        "min_lr": 0.0,
        "batch_size": 12,
        "loss": "ohem(threshold=0.9,kept=0.02)",
        "aux_weight": 0.4,
        "model_options": {"aux": True, "dropout": 0.0},
    },
}
