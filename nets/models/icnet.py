"""ICNet: most layers see a small image; finer branches of few layers sharpen what they found, step by step.

Paper: Zhao et al., "ICNet for Real-Time Semantic Segmentation on High-Resolution Images", ECCV 2018,
https://arxiv.org/abs/1704.08545

Versions: "paper" follows the paper and its authors' network definition: the image at a half runs through the
first block of stage 2 and on from there at a quarter; the grids of the pyramid are added; a fusion adds two
convolutions with norms and then has its only ReLU; a label guides each enlarged coarse map; the classifier
stands on the last fusion. "mmseg" is MMSegmentation's: the whole stage 2 runs at a half; the grids are
projected and joined; the middle branch has a projection; ReLUs stand in front of a fusion's sum as well;
labels guide the convolved coarse maps; the head has a convolution.

Deviations: the filters are not pruned after training (paper, section 4.4). The backbone is the standard
ResNet (the paper's has a stem of three convolutions: `backbone_options`). Of an odd side, a half is rounded
down.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.decoders.pyramid_pooling import PSPDecoder
from nets.errors import UserError
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.grid import grid_mean
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

Version = Literal["paper", "mmseg"]
STEM = ("conv1", "bn1", "act1", "maxpool", "layer1")
PARTS = (*STEM, "layer2", "layer3", "layer4")
HEAD = {
    "paper": {"num_convs": 0, "concat_input": False, "index": (2,)},
    "mmseg": {"num_convs": 1, "concat_input": False, "index": (2,)},
}
AUX = {
    version: tuple({"channels": 128, "dropout": 0.0, "num_convs": convs, "index": (i,)} for i in (0, 1))
    for version, convs in (("paper", 0), ("mmseg", 1))
}


class SummedPyramid(nn.Module):
    """A map plus its averages over grids of several sizes."""

    def __init__(self, scales: tuple[int, ...], *, align_corners: bool):
        super().__init__()
        self.scales, self.align_corners = scales, align_corners

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the last of the (B, C_i, h_i, w_i) to (B, C, h, w)."""
        x = features[-1]
        grids = (grid_mean(x, scale) for scale in self.scales)
        return x + sum(resize(grid, x.shape[-2:], align_corners=self.align_corners) for grid in grids)


class CascadeFusion(nn.Module):
    """A coarse map is enlarged and added to a fine one (paper, figure 3).

    Args:
        coarse_channels, fine_channels: of the maps.
        channels: width.
        version: see above.
        align_corners: how the coarse map is enlarged.
    """

    def __init__(
        self,
        coarse_channels: int,
        fine_channels: int,
        channels: int,
        *,
        version: Version,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners, self.guide_convolved = align_corners, version == "mmseg"
        self.coarse = ConvNormAct(coarse_channels, channels, dilation=2, act=version == "mmseg")
        self.fine = ConvNormAct(fine_channels, channels, 1, act=version == "mmseg")
        self.guided_channels = channels if version == "mmseg" else coarse_channels

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, h', w') and (B, C', h, w) to (B, D, h, w) and the map that a label guides."""
        enlarged = resize(coarse, fine.shape[-2:], align_corners=self.align_corners)
        convolved = self.coarse(enlarged)
        fused = F.relu(convolved + self.fine(fine))
        return fused, convolved if self.guide_convolved else enlarged


class Branches(nn.Module):
    """Everything between the backbone and the head.

    Args:
        bands: bands of an image.
        stage_channels: channels of the backbone's second and of its last stage.
        version: see above.
        fine_channels: widths of the three convolutions on the whole image.
        middle_channels: mmseg: width of the middle branch's projection.
        coarse_channels: width of the coarse branch's projection.
        pyramid_channels: mmseg: width of the pyramid's projections and behind them.
        fusion_channels: width of both fusions.
        pool_scales: cells along a side of each grid.
        align_corners: how the pyramid enlarges its grids, and the fusions their coarse maps.
        norm_eps: epsilon of the batch norms of branches and fusions.
    """

    def __init__(
        self,
        *,
        bands: int,
        stage_channels: tuple[int, int],
        version: Version,
        fine_channels: tuple[int, ...],
        middle_channels: int,
        coarse_channels: int,
        pyramid_channels: int,
        fusion_channels: int,
        pool_scales: tuple[int, ...],
        align_corners: tuple[bool, bool],
        norm_eps: tuple[float, float],
    ):
        super().__init__()
        middle, deep = stage_channels
        widths = (bands, *fine_channels)
        self.fine = nn.Sequential(
            *(ConvNormAct(a, b, stride=2) for a, b in zip(widths, fine_channels, strict=False))
        )
        self.middle: nn.Module = nn.Identity()
        self.pyramid: nn.Module = SummedPyramid(pool_scales, align_corners=align_corners[0])
        if version == "mmseg":
            self.middle = ConvNormAct(middle, middle_channels, 1)
            shape = {"pool_channels": pyramid_channels, "align_corners": align_corners[0]}
            self.pyramid = PSPDecoder([deep], pyramid_channels, scales=pool_scales, **shape)
            middle, deep = middle_channels, pyramid_channels
        self.coarse = ConvNormAct(deep, coarse_channels, 1)
        set_norm_eps(self, norm_eps[0])
        shape = {"version": version, "align_corners": align_corners[1]}
        self.fuse_middle = CascadeFusion(coarse_channels, middle, fusion_channels, **shape)
        self.fuse_fine = CascadeFusion(fusion_channels, fine_channels[-1], fusion_channels, **shape)
        for fusion in (self.fuse_middle, self.fuse_fine):
            set_norm_eps(fusion, norm_eps[1])
        guided = [self.fuse_middle.guided_channels, self.fuse_fine.guided_channels]
        self.channels = [*guided, fusion_channels]
        init_weights(self)

    def forward(self, images: Tensor, half: Tensor, quarter: Tensor) -> list[Tensor]:
        """Map images (B, C, H, W) and both of the backbone's maps to two that labels guide and the fusion."""
        coarse = self.coarse(self.pyramid([quarter]))
        middle, first = self.fuse_middle(coarse, self.middle(half))
        fused, second = self.fuse_fine(middle, self.fine(images))
        return [first, second, fused]


class ICNet(SegmentationModel):
    """`SegmentationModel` whose backbone runs in two parts, on two sizes of the image.

    Args:
        backbone: a ResNet.
        decoder: as for `SegmentationModel`.
        branches: makes maps of the image and both parts' results.
        split: blocks of stage 2 in the first part; None is all.
        shrink_align_corners: how images and maps are shrunk.
        network: further arguments of `SegmentationModel`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        branches: Branches,
        split: int | None,
        shrink_align_corners: bool,
        **network: object,
    ):
        super().__init__(backbone, decoder, **network)
        self.branches, self.split, self.shrink_align_corners = branches, split, shrink_align_corners

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map normalised images (B, C, H, W) to the maps of `Branches`."""
        body = self.backbone.body
        half = self._shrink(x)
        for name in STEM:
            if name == "maxpool":
                # As in the authors' framework sizes are rounded up: the pool reaches over the far border.
                half = F.pad(half, (0, 1, 0, 1), value=float("-inf"))
            half = body[name](half)
        half = body["layer2"][: self.split](half)
        quarter = self._shrink(half)
        if self.split is not None:
            quarter = body["layer2"][self.split :](quarter)
        return self.branches(x, half, body["layer4"](body["layer3"](quarter)))

    def _shrink(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h / 2, w / 2), rounded down, bilinear."""
        if self.shrink_align_corners:
            return resize(x, (x.shape[-2] // 2, x.shape[-1] // 2), align_corners=True)
        return F.avg_pool2d(x, 2)  # each place lies in the middle of four pixels


@register_model
def icnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    version: Version = "paper",
    output_stride: Literal[8, 16, 32] | None = None,
    fine_channels: tuple[int, ...] = (32, 32, 64),
    middle_channels: int = 256,
    coarse_channels: int = 256,
    pyramid_channels: int = 512,
    fusion_channels: int = 128,
    pool_scales: tuple[int, ...] = (1, 2, 3, 6),
    channels: int = 128,
    dropout: float = 0.0,
    align_corners: bool = False,
    inner_align_corners: bool = False,
    fusion_align_corners: bool = False,
    norm_eps: float = 1e-5,
    fusion_norm_eps: float = 1e-5,
    aux: bool = False,
    head_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> ICNet:
    """ICNet on a ResNet or what is built like one; output stride 8 where it can be dilated."""
    encoder = create_dilated_backbone(
        backbone, bands=bands, stages=3, output_stride=output_stride, options=backbone_options
    )
    body = getattr(encoder, "body", None)
    if any(not hasattr(body, part) for part in PARTS) or not isinstance(body.maxpool, nn.MaxPool2d):
        raise UserError(
            f"icnet: backbone {backbone} cannot run in two parts; take a ResNet, as resnet18 or resnet50"
        )
    branches = Branches(
        bands=bands,
        stage_channels=(encoder.channels[-3], encoder.channels[-1]),
        version=version,
        fine_channels=fine_channels,
        middle_channels=middle_channels,
        coarse_channels=coarse_channels,
        pyramid_channels=pyramid_channels,
        fusion_channels=fusion_channels,
        pool_scales=pool_scales,
        align_corners=(inner_align_corners, fusion_align_corners),
        norm_eps=(norm_eps, fusion_norm_eps),
    )
    maps = branches.channels
    heads = aux_heads or (AUX[version] if aux else ())
    return ICNet(
        encoder,
        FCNDecoder(maps, channels, align_corners=align_corners, **(HEAD[version] | (head_options or {}))),
        branches=branches,
        split=1 if version == "paper" else None,
        shrink_align_corners=inner_align_corners,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(maps, num_classes, aux=False, aux_heads=heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/icnet: Cityscapes, 160k iterations, total batch 8.
    "paper": SGD_POLY | {"batch_size": 8, "aux_weight": 0.4, "model_options": {"aux": True, "dropout": 0.0}},
}
