"""STDC: BiSeNet with one path, whose backbone's blocks keep many scales and whose fine map learns details.

Paper: Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021,
https://arxiv.org/abs/2104.13188

Parameters: the backbones of the paper have a convolution to 1024 channels and two layers more for ImageNet.

Deviations: none in the network. The head of the paper's detail guidance (`aux`: output "detail") scores one
class, MMSegmentation's two (`detail_classes`). "add" blocks are MMSegmentation's (`bottleneck`).
"""

from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from nets.decoders.bilateral import BilateralModel, ContextPath, Enlarge, FeatureFusion
from nets.decoders.fcn import FCNDecoder, FCNHead, create_aux_heads
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_weights
from nets.recipes import SGD_POLY
from nets.registry import register_model

# Blocks of stages 3 to 5 (paper, table 2).
BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
FINAL_CHANNELS = 1024
FUSED, CONTEXT, COARSE, SPATIAL = range(4)  # maps of `BilateralModel`
HEAD = {"num_convs": 1, "concat_input": False, "index": (FUSED,)}
AUX = tuple({"channels": 64, "index": (i,)} for i in (CONTEXT, COARSE))
DETAIL = {"channels": 64, "index": (SPATIAL,)}


class STDCBlock(nn.Module):
    """A chain of ever narrower convolutions whose results are all kept (paper, figure 3).

    Args:
        in_channels: channels of the input.
        channels: channels of the result.
        stride: 1 or 2.
        num_convs: length of the chain.
        kind: "cat" is the paper's; "add" also adds the input.
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, num_convs: int, kind: Literal["cat", "add"]
    ):
        super().__init__()
        self.kind = kind
        widths = [channels // 2**i for i in range(1, num_convs)]
        self.convs = nn.ModuleList([ConvNormAct(in_channels, widths[0], 1)])
        self.convs.extend(ConvNormAct(a, b) for a, b in zip(widths, [*widths[1:], widths[-1]], strict=True))
        self.down, self.skip = nn.Identity(), nn.Identity()
        if stride == 2:
            self.down = _halve(widths[0])
            if kind == "cat":
                self.skip = nn.AvgPool2d(3, 2, padding=1)
            else:
                shortcut = ConvNormAct(in_channels, channels, 1, act=False)
                self.skip = nn.Sequential(_halve(in_channels), shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / stride, w / stride)."""
        first = self.convs[0](x)
        half = self.down(first)
        rest = list(accumulate(self.convs[1:], lambda previous, conv: conv(previous), initial=half))[1:]
        if self.kind == "cat":
            return torch.cat([self.skip(first), *rest], dim=1)
        return torch.cat([half, *rest], dim=1) + self.skip(x)


def _halve(channels: int) -> ConvNormAct:
    return ConvNormAct(channels, channels, stride=2, groups=channels, act=False)


class STDCNet(nn.Module):
    """The backbone (paper, figure 3c and table 2).

    Args:
        name: a key of `BLOCKS`.
        bands: bands of an image.
        widths: channels of the five stages.
        num_convs: convolutions of a block.
        kind: of the blocks.
        final_conv: one more convolution on the deepest map.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: of the three deepest maps, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        widths: tuple[int, ...],
        num_convs: int,
        kind: Literal["cat", "add"],
        final_conv: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.name = name
        self.stages = nn.ModuleList(
            ConvNormAct(before, after, stride=2) for before, after in ((bands, widths[0]), widths[:2])
        )
        for before, after, blocks in zip(widths[1:-1], widths[2:], BLOCKS[name], strict=True):
            stage = [
                STDCBlock(after if i else before, after, stride=1 if i else 2, num_convs=num_convs, kind=kind)
                for i in range(blocks)
            ]
            self.stages.append(nn.Sequential(*stage))
        last = max(FINAL_CHANNELS, widths[-1]) if final_conv else widths[-1]
        self.final_conv = ConvNormAct(widths[-1], last, 1) if final_conv else nn.Identity()
        self.channels, self.strides = [*widths[2:-1], last], [8, 16, 32]
        set_norm_eps(self, norm_eps)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps at strides 8, 16 and 32."""
        features = list(accumulate(self.stages, lambda previous, stage: stage(previous), initial=x))[3:]
        return [*features[:-1], self.final_conv(features[-1])]


@register_model
def stdc(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["stdc1", "stdc2"] = "stdc1",
    widths: tuple[int, ...] = (32, 64, 256, 512, 1024),
    bottleneck: Literal["cat", "add"] = "cat",
    num_convs: int = 4,
    final_conv: bool = False,
    context_channels: int = 128,
    fusion_channels: int = 256,
    fusion_reduction: int = 4,
    enlarge: Enlarge = "nearest",
    context_align_corners: bool = False,
    channels: int = 256,
    dropout: float = 0.0,
    align_corners: bool = True,
    backbone_norm_eps: float = 1e-5,
    context_norm_eps: float = 1e-5,
    aux: bool = False,
    detail_classes: int = 1,
    head_options: dict | None = None,
    detail_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
) -> BilateralModel:
    """STDC-Seg.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size.
        widths: channels of the backbone's stages.
        bottleneck: kind of the backbone's blocks.
        num_convs: convolutions of a block.
        final_conv: one more convolution on the deepest map.
        context_channels: width of the context path.
        fusion_channels: width of the fusion.
        fusion_reduction: its weights are made through this share of the width.
        enlarge: how the context path enlarges maps.
        context_align_corners: of "bilinear".
        channels: width of the head.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        backbone_norm_eps: epsilon of the backbone's batch norms.
        context_norm_eps: epsilon of the context path's batch norms.
        aux: heads on both context maps and for the details of the fine one, in training.
        detail_classes: logits per pixel of the latter.
        head_options: further arguments of the head.
        detail_options: arguments of the head for the details, with or without `aux`.
        aux_heads: arguments of auxiliary heads instead of the usual ones.
    """
    encoder = STDCNet(
        backbone,
        bands=bands,
        widths=widths,
        num_convs=num_convs,
        kind=bottleneck,
        final_conv=final_conv,
        norm_eps=backbone_norm_eps,
    )
    context = ContextPath(
        encoder.channels,
        context_channels,
        enlarge=enlarge,
        align_corners=context_align_corners,
        norm_eps=context_norm_eps,
    )
    fusion = FeatureFusion(
        encoder.channels[0] + context_channels, fusion_channels, reduction=fusion_reduction
    )
    maps = [fusion_channels, context_channels, context_channels, encoder.channels[0]]
    detail = detail_options or (DETAIL if aux else None)
    return BilateralModel(
        encoder,
        FCNDecoder(maps, channels, align_corners=align_corners, **(HEAD | (head_options or {}))),
        context=context,
        fusion=fusion,
        detail_head=None if detail is None else FCNHead(maps, detail_classes, **detail),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(maps, num_classes, aux=False, aux_heads=aux_heads or (AUX if aux else ())),
    )


# Paper, section 4.1: everything has the weight 1.
GUIDED = {"aux_weight": 1.0, "extra_losses": {"detail": "detail"}}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3, "model_options": {"aux": True}} | GUIDED,
    # MMSegmentation configs/stdc: Cityscapes, 80k iterations, total batch 48, crops of 512 x 1024.
    "paper": SGD_POLY
    | GUIDED
    | {
        "batch_size": 48,
        "warmup_iters": 1000,
        "warmup_factor": 0.1,
        "loss": "ohem(threshold=0.7,kept=10000)",
        "model_options": {"aux": True, "dropout": 0.1},
    },
}
