"""Atrous spatial pyramid pooling: parallel dilated convolutions see a map at several scales."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, SeparableConv, set_norm_eps
from nets.layers.resize import resize


class ASPP(nn.Module):
    """1x1, dilated 3x3 and pooled branches, joined (https://arxiv.org/abs/1706.05587, section 3.3).

    Args:
        in_channels: channels of the input.
        channels: width.
        dilations: of each branch; 1 is a 1x1 convolution, others are 3x3.
        separable: depthwise separable dilated branches (v3+, section 3.1).
        join_kernel: side of the joining convolution's kernel in pixels.
        norm_between: norm and activation between the two parts of separable convolutions.
        join_dropout: rate of the dropout behind the joining convolution.
        align_corners: how the pooled branch is enlarged.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        dilations: Sequence[int],
        *,
        separable: bool,
        join_kernel: int = 1,
        norm_between: bool = True,
        join_dropout: float = 0.0,
        align_corners: bool = False,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList()
        for dilation in dilations:
            if dilation == 1:
                branch = ConvNormAct(in_channels, channels, 1)
            elif separable:
                branch = SeparableConv(in_channels, channels, dilation=dilation, norm_between=norm_between)
            else:
                branch = ConvNormAct(in_channels, channels, 3, dilation=dilation)
            self.branches.append(branch)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(in_channels, channels, 1))
        self.join = ConvNormAct((len(dilations) + 1) * channels, channels, join_kernel)
        self.dropout = nn.Dropout(join_dropout)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h, w)."""
        scales = [branch(x) for branch in self.branches]
        # (B, D, 1, 1) -> (B, D, h, w)
        scales.append(resize(self.pooled(x), x.shape[-2:], align_corners=self.align_corners))
        return self.dropout(self.join(torch.cat(scales, dim=1)))


class V3Decoder(nn.Module):
    """ASPP on one map (DeepLab v3), with further 3x3 convolutions where wanted.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        dilations: of the branches.
        index: map that is used.
        num_convs: 3x3 convolutions behind the ASPP.
        norm_eps: epsilon of the batch norms.
        aspp: further arguments of `ASPP`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        dilations: Sequence[int],
        *,
        index: int = -1,
        num_convs: int = 0,
        norm_eps: float = 1e-5,
        **aspp: object,
    ):
        super().__init__()
        self.index = index
        self.aspp = ASPP(in_channels[index], channels, dilations, separable=False, **aspp)
        self.refine = nn.Sequential(*(ConvNormAct(channels, channels) for _ in range(num_convs)))
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        return self.refine(self.aspp(features[self.index]))
