"""Fast-SCNN: the first layers are shared by a fine and a coarse branch, so everything else is cheap.

Paper: Poudel, Liwicki, Cipolla, "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019,
https://arxiv.org/abs/1902.04502

Deviations: the paper does not state how the pyramid's grids are projected and joined. Here each is a quarter
of the map's width, as PSPNet's, and the convolution behind them 1x1, which comes nearest to the paper's
1.11 M parameters (1.14 M with 19 classes). MMSegmentation has a 3x3 convolution there (`join_kernel`) and
does not dilate the fusion's depthwise convolution (`fusion_dilation`).
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.decoders.pyramid_pooling import PSPDecoder
from nets.layers.conv import ConvNormAct, SeparableConv, set_norm_eps, set_norm_momentum
from nets.layers.init import init_weights
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

EXPANSION, BLOCKS = 6, 3
FINE, COARSE, FUSED = range(3)  # maps of the backbone
HEAD = {"separable": True, "act_between": False, "concat_input": False, "index": (FUSED,)}
AUX = tuple({"channels": 32, "index": (i,)} for i in (COARSE, FINE))


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381), with ReLU."""

    def __init__(self, in_channels: int, channels: int, *, stride: int):
        super().__init__()
        width = EXPANSION * in_channels
        self.convs = nn.Sequential(
            ConvNormAct(in_channels, width, 1),
            ConvNormAct(width, width, stride=stride, groups=width),
            ConvNormAct(width, channels, 1, act=False),
        )
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / stride, w / stride)."""
        return x + self.convs(x) if self.residual else self.convs(x)


class FeatureFusion(nn.Module):
    """The coarse map enlarged and convolved, plus the fine one (paper, table 3).

    Args:
        fine_channels, coarse_channels: of the maps.
        channels: width.
        dilation: of the depthwise convolution.
        align_corners: how the coarse map is enlarged.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, channels: int, *, dilation: int, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.depthwise = ConvNormAct(coarse_channels, channels, dilation=dilation, groups=channels)
        self.coarse = ConvNormAct(channels, channels, 1, act=False)
        self.fine = ConvNormAct(fine_channels, channels, 1, act=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C', h', w') to (B, D, h, w)."""
        enlarged = resize(coarse, fine.shape[-2:], align_corners=self.align_corners)
        return relu(self.fine(fine) + self.coarse(self.depthwise(enlarged)))


class FastSCNN(nn.Module):
    """Learning to downsample, global feature extractor and feature fusion (paper, table 1).

    Args:
        bands: bands of an image.
        down_channels: widths of the three shared convolutions; the last is that of the fine map.
        block_channels: widths of the three groups of bottlenecks.
        strides: of the three groups.
        coarse_channels: width of the coarse map.
        fused_channels: width of the fused map.
        join_kernel: side of the kernel behind the pyramid, in pixels.
        fusion_dilation: of the fusion's depthwise convolution.
        act_between: ReLU between the parts of the separable convolutions.
        align_corners: how maps are enlarged.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: of the fine, the coarse and the fused map.
    """

    def __init__(
        self,
        *,
        bands: int,
        down_channels: Sequence[int],
        block_channels: Sequence[int],
        strides: Sequence[int],
        coarse_channels: int,
        fused_channels: int,
        join_kernel: int,
        fusion_dilation: int,
        act_between: bool,
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.name = "fast_scnn"
        first, second, fine = down_channels
        self.down = nn.Sequential(
            ConvNormAct(bands, first, stride=2),
            SeparableConv(first, second, stride=2, act_between=act_between),
            SeparableConv(second, fine, stride=2, act_between=act_between),
        )
        self.groups, before, total = nn.Sequential(), fine, 8
        for width, stride in zip(block_channels, strides, strict=True):
            blocks = [InvertedResidual(before, width, stride=stride)]
            blocks += [InvertedResidual(width, width, stride=1) for _ in range(BLOCKS - 1)]
            self.groups.append(nn.Sequential(*blocks))
            before, total = width, total * stride
        self.pyramid = PSPDecoder(
            [before], coarse_channels, join_kernel=join_kernel, align_corners=align_corners
        )
        self.fusion = FeatureFusion(
            fine, coarse_channels, fused_channels, dilation=fusion_dilation, align_corners=align_corners
        )
        self.channels, self.strides = [fine, coarse_channels, fused_channels], [8, total, 8]
        set_norm_eps(self, norm_eps)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the fine map at stride 8, the coarse one and their fusion at stride 8."""
        fine = self.down(x)
        coarse = self.pyramid([self.groups(fine)])
        return [fine, coarse, self.fusion(fine, coarse)]


@register_model
def fast_scnn(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["fast_scnn"] = "fast_scnn",
    down_channels: tuple[int, ...] = (32, 48, 64),
    block_channels: tuple[int, ...] = (64, 96, 128),
    strides: tuple[int, ...] = (2, 2, 1),
    coarse_channels: int = 128,
    fused_channels: int = 128,
    join_kernel: int = 1,
    fusion_dilation: int = 4,
    act_between: bool = False,
    inner_align_corners: bool = False,
    channels: int = 128,
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    norm_momentum: float = 0.1,
    aux: bool = False,
    head_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
) -> SegmentationModel:
    """Fast-SCNN.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: there is one.
        down_channels: widths of the three convolutions that both branches share.
        block_channels: widths of the coarse branch's three groups of bottlenecks.
        strides: of these groups.
        coarse_channels: width behind the pyramid.
        fused_channels: width of the fusion.
        join_kernel: side of the kernel behind the pyramid, in pixels.
        fusion_dilation: of the fusion's depthwise convolution.
        act_between: ReLU between the parts of the backbone's separable convolutions.
        inner_align_corners: how the backbone enlarges maps.
        channels: width of the head.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized.
        norm_eps: epsilon of the backbone's batch norms.
        norm_momentum: share of a batch in the running statistics of all batch norms.
        aux: heads on the coarse and the fine map, in training.
        head_options: further arguments of the head.
        aux_heads: arguments of auxiliary heads instead of the usual ones.
    """
    encoder = FastSCNN(
        bands=bands,
        down_channels=down_channels,
        block_channels=block_channels,
        strides=strides,
        coarse_channels=coarse_channels,
        fused_channels=fused_channels,
        join_kernel=join_kernel,
        fusion_dilation=fusion_dilation,
        act_between=act_between,
        align_corners=inner_align_corners,
        norm_eps=norm_eps,
    )
    maps = encoder.channels
    network = SegmentationModel(
        encoder,
        FCNDecoder(maps, channels, align_corners=align_corners, **(HEAD | (head_options or {}))),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(maps, num_classes, aux=False, aux_heads=aux_heads or (AUX if aux else ())),
    )
    set_norm_momentum(network, norm_momentum)
    return network


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/fastscnn: Cityscapes from scratch, 160k iterations, total batch 32.
    "paper": SGD_POLY
    | {
        "lr": 0.12,
        "weight_decay": 4e-5,
        "batch_size": 32,
        "aux_weight": 0.4,
        "model_options": {"aux": True, "dropout": 0.1, "norm_momentum": 0.01},
    },
}
