"""Semantic FPN: every level of a feature pyramid is enlarged step by step, and the sum is classified.

Paper: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, https://arxiv.org/abs/1901.02446,
section 3 and figure 3; the pyramid: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
https://arxiv.org/abs/1612.03144

Deviations: none in the head; there is no instance branch, as in the paper's semantic networks, and the ResNet
is timm's. MMSegmentation has batch norm (`norm=batch`), 0.1 dropout and a stem of three convolutions
(`backbone_options`).
PoolFormer and Twins-SVT have norms on their maps, as their authors' Semantic FPNs.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_pyramid
from nets.decoders.fcn import create_aux_heads
from nets.decoders.joining import Interpolation
from nets.decoders.semantic_fpn import LevelSum
from nets.errors import UserError
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Groups of the group norms, as the authors' code (https://github.com/facebookresearch/detectron2) has them.
NORM_GROUPS = 32
# Stochastic depth of the authors' networks, by the beginning of the backbone's name (MMSegmentation configs).
DROP_PATH = {"twins_svt_large": 0.3, "twins_": 0.2}


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, a top-down path that adds, and a 3x3 convolution on each sum.

    Args:
        in_channels: channels of the maps, finest first.
        channels: common width.
        norm: batch norm behind each convolution.
        smooth: whether there are the 3x3 convolutions.
        enlarge: how a coarser level is enlarged.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        norm: bool = False,
        smooth: bool = True,
        enlarge: Interpolation = "nearest",
    ):
        super().__init__()
        self.laterals = nn.ModuleList(
            ConvNormAct(width, channels, 1, norm=norm, act=False) for width in in_channels
        )
        self.smooth = nn.ModuleList(
            ConvNormAct(channels, channels, 3, norm=norm, act=False) if smooth else nn.Identity()
            for _ in in_channels
        )
        self.mode = enlarge

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the (B, C_i, h_i, w_i) to as many (B, D, h_i, w_i)."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], levels[i - 1].shape[-2:], mode=self.mode)
        return [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]


class SemanticFPNDecoder(LevelSum):
    """Feature pyramid, its levels enlarged to the finest and added (paper, figure 3).

    Args:
        in_channels: channels of the maps, finest first.
        strides: of these maps.
        pyramid_channels: width of the pyramid.
        pyramid: further arguments of `FeaturePyramid`.
        channels: width of the head.
        norm: norm of the head, "group" or "batch".
        merge: whether the enlarged levels are added or, deepest first, concatenated.
        align_corners: how the levels are enlarged.
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        pyramid_channels: int,
        pyramid: dict,
        channels: int,
        norm: str,
        merge: str,
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__(
            [pyramid_channels] * len(in_channels),
            strides,
            channels=channels,
            norm=norm,
            merge=merge,
            align_corners=align_corners,
            norm_eps=norm_eps,
        )
        self.pyramid = FeaturePyramid(in_channels, pyramid_channels, **pyramid)
        set_norm_eps(self.pyramid, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        return super().forward(self.pyramid(features))


@register_model
def sem_fpn(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    pyramid_channels: int = 256,
    pyramid_norm: bool = False,
    pyramid_smooth: bool = True,
    enlarge: Interpolation = "nearest",
    channels: int = 128,
    norm: Literal["group", "batch"] = "group",
    merge: Literal["add", "cat"] = "add",
    feature_strides: tuple[int, ...] | None = None,
    drop_path: float | None = None,
    dropout: float = 0.0,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """Semantic FPN on the four deepest maps of any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: a ResNet, poolformer_s12/s24/s36/m36/m48, twins_pcpvt_s/b/l, twins_svt_s/b/l, any catalogue
            backbone.
        pyramid_channels: width of the feature pyramid.
        pyramid_norm: batch norm in the feature pyramid.
        pyramid_smooth: the pyramid's 3x3 convolutions, which segmentation_models.pytorch leaves out.
        enlarge: how the pyramid enlarges its levels.
        channels: width of the head.
        norm: norm of the head; "group" is the paper's, "batch" MMSegmentation's.
        merge: whether the head's levels are added or concatenated.
        feature_strides: strides in pixels that the head takes the maps to have, powers of 2 times the first;
            None is those they have.
        drop_path: rate of stochastic depth; None is 0.2 on Twins (SVT-L 0.3), 0 elsewhere.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how levels and logits are enlarged.
        norm_eps: epsilon of the decoder's norms.
        aux: build the usual auxiliary FCN head on the backbone's last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        backbone_options: arguments of the backbone's class instead of `drop_path` and its defaults.

    Raises:
        UserError: the backbone has fewer than four maps or maps of one resolution only, or the head's width
            cannot be divided into groups.
    """
    if norm == "group" and channels % NORM_GROUPS:
        raise UserError(
            f"sem_fpn: channels={channels} is given; a multiple of {NORM_GROUPS}, the groups of its norm, is "
            "needed, or norm=batch"
        )
    encoder = create_pyramid(
        backbone,
        bands=bands,
        user="sem_fpn",
        drop_path=drop_path,
        usual_drop_path=DROP_PATH,
        options=backbone_options,
    )
    decoder = SemanticFPNDecoder(
        encoder.channels,
        feature_strides or encoder.strides,
        pyramid_channels=pyramid_channels,
        pyramid={"norm": pyramid_norm, "smooth": pyramid_smooth, "enlarge": enlarge},
        channels=channels,
        norm=norm,
        merge=merge,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/sem_fpn, poolformer, twins: ADE20K, batch 16, of the transformers 32.
    "paper": SGD_POLY | {"model_options": {"dropout": 0.1}},
    "paper_where": [
        (
            {"backbone": "poolformer"},
            {"optimizer": "adamw", "lr": 2e-4, "weight_decay": 1e-4, "min_lr": 0.0, "batch_size": 32},
        ),
        # Its floor is its rate: the learning rate is constant.
        ({"backbone": "twins_"}, {"optimizer": "adamw", "lr": 1e-4, "weight_decay": 1e-4, "batch_size": 32}),
    ],
}
