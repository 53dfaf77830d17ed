"""PIDNet: beside a detailed and a deep branch a third finds the boundaries, where details count more.

Paper: Xu, Xiong, Bhattacharyya, "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID
Controllers", CVPR 2023, https://arxiv.org/abs/2206.02066

P is the proportional branch (details), I the integral one (context), D the derivative one (boundaries).

Deviations: none in the network. What is enlarged gets the fine branches' own size, so any image size fits;
the authors' code and MMSegmentation's take an eighth of the image, rounded down.
"""

from functools import partial
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.dual_resolution import (
    NormFirstDecoder,
    NormFirstHead,
    PyramidAggregation,
    ResidualBlock,
    create_stage,
    create_stem,
)
from nets.layers.conv import ConvNormAct, NormActConv
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class Size(NamedTuple):
    """Width of the stem, of the aggregation, of the head; blocks per stage of stem and P, and of I."""

    width: int
    pyramid: int
    head: int
    stem_blocks: int
    deep_blocks: int


# Paper, table 2.
SIZES = {"s": Size(32, 96, 128, 2, 3), "m": Size(64, 96, 128, 2, 3), "l": Size(64, 112, 256, 3, 4)}
# Stem blocks of the sizes whose D branch, aggregation and last fusion are the light ones.
LIGHT = 2
FUSED, DETAIL, BOUNDARY = range(3)  # maps of the backbone


class PixelGuidedFusion(nn.Module):
    """Each pixel chooses between both branches by how alike they are there (Pag; paper, figure 5)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.fine, self.deep = (ConvNormAct(channels, width, 1, act=False) for _ in range(2))

    def forward(self, fine: Tensor, deep: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C, h', w') to (B, C, h, w)."""
        size = fine.shape[-2:]
        likeness = self.fine(fine) * resize(self.deep(deep), size)
        share = likeness.sum(dim=1, keepdim=True).sigmoid()
        return share * resize(deep, size) + (1 - share) * fine


class BoundaryGuidedFusion(nn.Module):
    """Details where a boundary is, context elsewhere (Bag and Light-Bag; paper, figure 7).

    Args:
        channels: of all maps.
        light: two 1x1 convolutions instead of one 3x3.
    """

    def __init__(self, channels: int, *, light: bool):
        super().__init__()
        self.light = light
        if light:
            self.fine, self.deep = (ConvNormAct(channels, channels, 1, act=False) for _ in range(2))
        else:
            self.conv = NormActConv(channels, channels)

    def forward(self, fine: Tensor, deep: Tensor, boundary: Tensor) -> Tensor:
        """Map three (B, C, h, w) to one."""
        share = boundary.sigmoid()
        if self.light:
            return self.fine(fine + (1 - share) * deep) + self.deep(deep + share * fine)
        return self.conv(share * fine + (1 - share) * deep)


class PIDNetBackbone(nn.Module):
    """Stem, three branches and their fusion (paper, figure 4).

    Args:
        size: widths and blocks.
        bands: bands of an image.
        align_corners: how maps of the deep branch are enlarged, but in the pixel-guided fusions.

    Attributes:
        channels, strides: of the fusion, of P behind stage 3 and of D behind stage 4.
    """

    def __init__(self, size: Size, *, bands: int, align_corners: bool):
        super().__init__()
        self.name, self.align_corners = "pidnet", align_corners
        width, fine = size.width, 2 * size.width
        light = size.stem_blocks == LIGHT
        self.stem = create_stem(bands, width, (size.stem_blocks,) * 2)
        self.deep = nn.ModuleList(
            [
                create_stage(fine, 4 * width, size.deep_blocks, stride=2),
                create_stage(4 * width, 8 * width, size.deep_blocks, stride=2),
                create_stage(8 * width, 8 * width, 2, stride=2, bottleneck=True),
            ]
        )
        self.fine = nn.ModuleList(create_stage(fine, fine, size.stem_blocks) for _ in range(2))
        self.fine.append(create_stage(fine, fine, 1, bottleneck=True))
        first = width if light else fine
        self.boundary = nn.ModuleList(
            [
                ResidualBlock(fine, first),
                ResidualBlock(first, first, bottleneck=light),
                ResidualBlock(fine, fine, bottleneck=True),
            ]
        )
        self.compress = nn.ModuleList(ConvNormAct(i * width, fine, 1, act=False) for i in (4, 8))
        self.guide = nn.ModuleList(PixelGuidedFusion(fine, width) for _ in range(2))
        self.tell = nn.ModuleList(
            ConvNormAct(i * width, channels, act=False) for i, channels in ((4, first), (8, fine))
        )
        self.pyramid = PyramidAggregation(16 * width, size.pyramid, 4 * width, parallel=light)
        self.fuse = BoundaryGuidedFusion(4 * width, light=light)
        self.channels, self.strides = [4 * width, fine, fine], [8, 8, 8]
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the fusion, P behind stage 3 and D behind stage 4, all at stride 8."""
        deep = fine = boundary = self.stem(x)
        size, fines, boundaries = fine.shape[-2:], [], []
        for i in range(2):
            deep = F.relu(self.deep[i](deep))
            fine = self.guide[i](self.fine[i](F.relu(fine)), self.compress[i](deep))
            told = resize(self.tell[i](deep), size, align_corners=self.align_corners)
            boundary = self.boundary[i](F.relu(boundary)) + told
            fines.append(fine)
            boundaries.append(boundary)
        fine, boundary = self.fine[2](F.relu(fine)), self.boundary[2](F.relu(boundary))
        deep = resize(self.pyramid(self.deep[2](deep)), size, align_corners=self.align_corners)
        return [self.fuse(fine, deep, boundary), fines[0], boundaries[1]]


class PIDNet(SegmentationModel):
    """`SegmentationModel` that adds "boundary", logits (B, 1, H, W), in training.

    Args:
        backbone, decoder: as for `SegmentationModel`.
        boundary_head: maps the backbone's maps to the logits; None is none.
        network: further arguments of `SegmentationModel`.
    """

    enlarged = ("boundary",)

    def __init__(
        self, backbone: nn.Module, decoder: nn.Module, *, boundary_head: nn.Module | None, **network: object
    ):
        super().__init__(backbone, decoder, **network)
        self.boundary_head = boundary_head

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the backbone's maps to {"logits": (B, K, h, w)}; training adds "boundary" (B, 1, h, w)."""
        outputs = super().decode(features)
        if self.training and self.boundary_head is not None:
            outputs["boundary"] = self.boundary_head(features)
        return outputs


@register_model
def pidnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["s", "m", "l"] = "s",
    width: int | None = None,
    pyramid_channels: int | None = None,
    stem_blocks: int | None = None,
    deep_blocks: int | None = None,
    channels: int | None = None,
    dropout: float = 0.0,
    align_corners: bool = True,
    inner_align_corners: bool = False,
    aux: bool = False,
) -> PIDNet:
    """PIDNet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size; the next five options are the size's where they are None.
        width: of the stem.
        pyramid_channels: width of each average in the aggregation.
        stem_blocks: blocks per stage of the stem and of P; 2 also means the light D, aggregation and fusion.
        deep_blocks: blocks per stage of I.
        channels: width of the head.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        inner_align_corners: how maps of the deep branch are enlarged.
        aux: heads on P behind stage 3 and, for boundaries, on D behind stage 4, in training.
    """
    given = (width, pyramid_channels, channels, stem_blocks, deep_blocks)
    size = Size(*(own or usual for own, usual in zip(given, SIZES[backbone], strict=True)))
    encoder = PIDNetBackbone(size, bands=bands, align_corners=inner_align_corners)
    maps, shape = encoder.channels, {"align_corners": align_corners}
    aux_head = partial(NormFirstHead, maps, num_classes, channels=size.head, index=DETAIL)
    return PIDNet(
        encoder,
        NormFirstDecoder(maps, size.head, index=FUSED),
        boundary_head=NormFirstHead(maps, 1, channels=size.width, index=BOUNDARY, **shape) if aux else None,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=[aux_head(**shape)] if aux else (),
    )


# Paper, section 3.4: 20 times the boundaries' own loss.
BOUNDARIES = {"boundary": "edges:20"}
# The hard pixels of MMSegmentation: 131,072 of a GPU's six crops of 1024 x 1024, or more.
HARD = "(threshold=0.9,kept=0.02)"
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3, "extra_losses": BOUNDARIES, "model_options": {"aux": True}},
    # MMSegmentation configs/pidnet: Cityscapes, 120k iterations, total batch 12; classes weighted there. The
    # auxiliary head's loss is cross entropy, other than the main one's.
    "paper": SGD_POLY
    | {
        "min_lr": 0.0,
        "batch_size": 12,
        "loss": f"ohem{HARD}",
        "aux_weight": 0.0,
        "extra_losses": BOUNDARIES | {"aux": "ce:0.4", "boundary,logits": f"near_edges{HARD}"},
        "model_options": {"aux": True, "dropout": 0.1},
    },
}
