"""FastFCN: the maps of strides 8, 16 and 32 are joined into what a dilated backbone would give, for less.

Paper: Wu et al., "FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation", 2019,
https://arxiv.org/abs/1903.11816

Heads: "enc" is EncNet's (https://arxiv.org/abs/1803.08904), "psp" PSPNet's (https://arxiv.org/abs/1612.01105),
"aspp" DeepLab v3's (https://arxiv.org/abs/1706.05587).

Deviations: none in the network. The semantic encoding loss of "enc" works on the output "class_presence".
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.decoders.aspp import V3Decoder
from nets.decoders.encoding import EncodingDecoder, EncodingModel
from nets.decoders.fcn import create_aux_heads
from nets.decoders.pyramid_pooling import PSPDecoder
from nets.layers.conv import ConvNormAct, SeparableConv, set_norm_eps
from nets.layers.resize import resize
from nets.recipes import SGD_POLY, WITH_AUX, WITH_PRESENCE
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class JPU(nn.Module):
    """Joint pyramid upsampling: maps at the finest one's size, seen with several dilations (paper, figure 4).

    Args:
        in_channels: channels of the maps, finest first.
        channels: width of each map and of each dilated branch.
        dilations: of the branches.
        align_corners: how the coarser maps are enlarged.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        dilations: Sequence[int],
        *,
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.reduce = nn.ModuleList(ConvNormAct(width, channels) for width in in_channels)
        self.branches = nn.ModuleList(
            SeparableConv(len(in_channels) * channels, channels, dilation=dilation, act_between=False)
            for dilation in dilations
        )
        self.out_channels = len(dilations) * channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, S D, h_0, w_0), S branches."""
        size = features[0].shape[-2:]
        reduced = [reduce(x) for reduce, x in zip(self.reduce, features, strict=True)]
        joined = torch.cat([resize(x, size, align_corners=self.align_corners) for x in reduced], dim=1)
        return torch.cat([branch(joined) for branch in self.branches], dim=1)


class JPUDecoder(nn.Module):
    """A decoder whose deepest map is replaced by what the `JPU` makes of all maps."""

    def __init__(self, jpu: JPU, head: nn.Module):
        super().__init__()
        self.jpu, self.head = jpu, head
        self.out_channels = head.out_channels

    def forward(self, features: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Map the (B, C_i, h_i, w_i) to what the head returns, at the size of the finest map."""
        return self.head([*features[:-1], self.jpu(features)])


HEADS = {"enc": EncodingDecoder, "psp": PSPDecoder, "aspp": V3Decoder}
# DeepLab's branches at output stride 8.
HEAD_DEFAULTS = {"enc": {}, "psp": {}, "aspp": {"dilations": (1, 12, 24, 36)}}


@register_model
def fastfcn(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    head: Literal["enc", "psp", "aspp"] = "enc",
    channels: int = 512,
    jpu_channels: int = 512,
    jpu_dilations: tuple[int, ...] = (1, 2, 4, 8),
    jpu_align_corners: bool = False,
    presence: bool = True,
    head_options: dict | None = None,
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    jpu_norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """FastFCN on the three deepest maps of any backbone, with one of three heads."""
    encoder = create_configured_backbone(backbone, bands=bands, stages=3, options=backbone_options)
    jpu = JPU(
        encoder.channels, jpu_channels, jpu_dilations, align_corners=jpu_align_corners, norm_eps=jpu_norm_eps
    )
    decoder = HEADS[head](
        [*encoder.channels[:-1], jpu.out_channels],
        channels,
        align_corners=align_corners,
        norm_eps=norm_eps,
        **(HEAD_DEFAULTS[head] | (head_options or {})),
    )
    network, own = (EncodingModel, {"presence": presence}) if head == "enc" else (SegmentationModel, {})
    return network(
        encoder,
        JPUDecoder(jpu, decoder),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
        **own,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    "plain_where": [({"head": "enc"}, WITH_PRESENCE)],
    # MMSegmentation configs/fastfcn.
    "paper": SGD_POLY | WITH_AUX,
    "paper_where": [({"head": "enc"}, WITH_PRESENCE)],
}
