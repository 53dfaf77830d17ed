"""LR-ASPP: a light head for MobileNetV3, one convolution and one gate that sees the whole scene.

Paper: Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, section 6.4
and figure 10

Deviations: the sum of the two classifiers, of the deep and of the fine map, is one classifier of both maps
side by side. The pooling window is no larger than the map, so that small images work. The last block keeps
its width, which the paper halves for its fastest networks; dropout is MMSegmentation's. Its head
(`version=mmseg`) joins maps at 1/4 and 1/2 by convolutions. torchvision's gate is decided by the mean of the
whole map (`gate=mean`).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate
from nets.backbones.configured import create_configured_backbone
from nets.errors import UserError
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.grid import window_mean
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Pooling of the gate in pixels of the deepest map: the window's side and how far it moves down and right.
WINDOW, STEPS = 49, (16, 20)


class GatedMap(nn.Module):
    """1x1 convolution, times a gate that large windows of the same map decide, or its mean.

    Args:
        in_channels: channels of the map.
        channels: width.
        align_corners: how the gate is enlarged.
        windows: whether there are windows.
    """

    def __init__(self, in_channels: int, channels: int, *, align_corners: bool, windows: bool = True):
        super().__init__()
        self.align_corners, self.windows = align_corners, windows
        self.conv = ConvNormAct(in_channels, channels, 1)
        self.gate = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        if not self.windows:
            return self.conv(x) * self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        gate = self.gate(window_mean(x, WINDOW, STEPS)).sigmoid()
        return self.conv(x) * resize(gate, x.shape[-2:], align_corners=self.align_corners)


class LRASPPDecoder(nn.Module):
    """The gated deepest map, enlarged, beside a finer map (paper, figure 10).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        low_index: the finer map.
        windows: as `GatedMap` takes it.
        align_corners: how maps are enlarged.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        low_index: int,
        windows: bool,
        align_corners: bool,
    ):
        super().__init__()
        self.low_index, self.align_corners = low_index, align_corners
        self.deep = GatedMap(in_channels[-1], channels, align_corners=align_corners, windows=windows)
        self.out_channels = channels + in_channels[low_index]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the finer map."""
        low = features[self.low_index]
        deep = resize(self.deep(features[-1]), low.shape[-2:], align_corners=self.align_corners)
        return torch.cat([deep, low], dim=1)


class JoiningDecoder(nn.Module):
    """The gated deepest map, joined with finer and finer maps by 1x1 convolutions (MMSegmentation).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        branch_channels: width that each finer map is reduced to, finest first.
        align_corners: how maps are enlarged.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        branch_channels: Sequence[int],
        *,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.deep = GatedMap(in_channels[-1], channels, align_corners=align_corners)
        self.after = nn.Conv2d(channels, channels, 1)
        self.reduce = nn.ModuleList(
            nn.Conv2d(width, branch, 1, bias=False)
            for width, branch in zip(in_channels[: len(branch_channels)], branch_channels, strict=True)
        )
        self.join = nn.ModuleList(ConvNormAct(channels + branch, channels, 1) for branch in branch_channels)
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        x = self.after(self.deep(features[-1]))  # (B, D, H / 8, W / 8)
        for i in range(len(self.join) - 1, -1, -1):
            x = resize(x, features[i].shape[-2:], align_corners=self.align_corners)
            x = self.join[i](torch.cat([x, self.reduce[i](features[i])], dim=1))
        return x


@register_model
def lraspp(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "mobilenet_v3",
    version: Literal["paper", "mmseg"] = "paper",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 128,
    gate: Literal["windows", "mean"] = "windows",
    branch_channels: tuple[int, ...] = (32, 64),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-3,
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """LR-ASPP on any backbone; output stride 16 where the backbone can be dilated, else its own.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: mobilenet_v3, mobilenet_v3_small, any catalogue backbone.
        version: "paper" reads the deepest map and the last but two, "mmseg" as many as `branch_channels` say
            and the deepest.
        output_stride: of the deepest map in pixels; None is 16, for "mmseg" 8, where that can be.
        channels: width of the head.
        gate: what decides the gate: means of large windows or, "paper" alone, as in torchvision, of all.
        branch_channels: mmseg: width that each finer map is reduced to, finest first.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how gate, maps and logits are enlarged.
        norm_eps: epsilon of the head's batch norms.
        backbone_options: arguments of the backbone's class instead of `output_stride`.

    Raises:
        UserError: the backbone has too few maps, or the gate belongs to the other version.
    """
    if version == "mmseg" and gate != "windows":
        raise UserError(f"lraspp: gate={gate} is given with version=mmseg; it belongs to version=paper")
    if output_stride is None and not backbone_options and can_dilate(backbone):
        output_stride = 16 if version == "paper" else 8
    encoder = create_configured_backbone(
        backbone,
        bands=bands,
        stages=3 if version == "paper" else None,
        output_stride=output_stride,
        options=backbone_options,
    )
    if version == "paper":
        low = -min(3, len(encoder.channels))
        decoder = LRASPPDecoder(
            encoder.channels,
            channels,
            low_index=low,
            windows=gate == "windows",
            align_corners=align_corners,
        )
    else:
        count = len(branch_channels)
        if len(encoder.channels) <= count:
            raise UserError(
                f"lraspp: branch_channels={branch_channels} and the deepest are {count + 1} maps; backbone "
                f"{backbone} has {len(encoder.channels)}; give fewer branch_channels"
            )
        decoder = JoiningDecoder(encoder.channels, channels, branch_channels, align_corners=align_corners)
    set_norm_eps(decoder, norm_eps)
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/mobilenet_v3: Cityscapes, batch 16.
    "paper": SGD_POLY | {"model_options": {"dropout": 0.1}},
}
