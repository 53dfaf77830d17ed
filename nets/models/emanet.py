"""EMANet: attention to a few bases, found by expectation maximisation, instead of to all pixels.

Paper: Li et al., "Expectation-Maximization Attention Networks for Semantic Segmentation", ICCV 2019,
https://arxiv.org/abs/1907.13426

Deviations: MMSegmentation joins the result with the decoder's input (`concat_input`). The bases follow the
training images in the forward pass, as the paper's section 3.4 has it; with several processes each keeps its
own until they are synchronised.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels, select_features
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.precision import full_precision
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class EMAttention(nn.Module):
    """Rebuild a map from a few bases that expectation maximisation fits to it (paper, section 3.2).

    Args:
        channels: channels of the map.
        num_bases: number of bases.
        steps: iterations.
        momentum: share of a batch's bases in the kept ones, in training.

    Attributes:
        bases: start of the iterations (1, C, K), columns of length 1.
    """

    def __init__(self, channels: int, *, num_bases: int, steps: int, momentum: float):
        super().__init__()
        self.steps, self.momentum = steps, momentum
        self.register_buffer("bases", F.normalize(torch.randn(1, channels, num_bases), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w), without a gradient."""
        # The iterations have no gradient in the paper, and nothing else here depends on a parameter.
        with torch.no_grad(), full_precision(x) as wide:
            pixels = wide.flatten(2)  # (B, C, N)
            bases = self.bases.to(wide.dtype).expand(x.shape[0], -1, -1)
            for _ in range(self.steps):
                shares = (pixels.transpose(1, 2) @ bases).softmax(dim=2)  # (B, N, K)
                bases = F.normalize(pixels @ F.normalize(shares, p=1, dim=1), dim=1)
            if self.training:
                mean = F.normalize(bases.mean(dim=0, keepdim=True), dim=1)
                self.bases.lerp_(mean.to(self.bases.dtype), self.momentum)
            return (bases @ shares.transpose(1, 2)).reshape(x.shape).to(x.dtype)


class EMADecoder(nn.Module):
    """Convolution -> attention to bases, added -> convolution (paper, figure 2).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width behind the attention.
        attention_channels: width of the attention.
        concat_input: join the result with the input by one more convolution.
        index: maps that are used; several are resized to the first of them and concatenated.
        align_corners: how several maps are resized.
        norm_eps: epsilon of the batch norms.
        attention: arguments of `EMAttention`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        attention_channels: int,
        *,
        concat_input: bool,
        index: Sequence[int],
        align_corners: bool,
        norm_eps: float,
        **attention: object,
    ):
        super().__init__()
        self.index, self.align_corners = tuple(index), align_corners
        width = joined_channels(in_channels, index)
        self.enter = ConvNormAct(width, attention_channels)
        self.middle = nn.Conv2d(attention_channels, attention_channels, 1)
        self.middle.requires_grad_(False)  # no gradient passes the attention
        self.attention = EMAttention(attention_channels, **attention)
        self.leave = ConvNormAct(attention_channels, attention_channels, 1, act=False)
        self.refine = ConvNormAct(attention_channels, channels)
        self.join = ConvNormAct(width + channels, channels) if concat_input else None
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        x = select_features(features, self.index, align_corners=self.align_corners)
        entered = self.enter(x)
        rebuilt = self.leave(F.relu(self.attention(self.middle(entered))))
        refined = self.refine(F.relu(entered + rebuilt))
        return refined if self.join is None else self.join(torch.cat([x, refined], dim=1))


@register_model
def emanet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 256,
    attention_channels: int = 512,
    num_bases: int = 64,
    steps: int = 3,
    momentum: float = 0.1,
    concat_input: bool = False,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """EMANet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = EMADecoder(
        encoder.channels,
        channels,
        attention_channels,
        concat_input=concat_input,
        index=in_index,
        align_corners=align_corners,
        norm_eps=norm_eps,
        num_bases=num_bases,
        steps=steps,
        momentum=momentum,
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
    # MMSegmentation configs/emanet.
    "paper": SGD_POLY | WITH_AUX,
}
