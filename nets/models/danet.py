"""DANet: attention among pixels and attention among channels, side by side, summed.

Paper: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, https://arxiv.org/abs/1809.02983

Deviations: none in the network. The losses of both attentions' own logits weigh 1, as in the paper;
MMSegmentation adds an auxiliary head with 0.4 (`aux`).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels, select_features
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_classifier
from nets.layers.pixel_attention import PixelAttention
from nets.layers.precision import full_precision
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class PositionAttention(nn.Module):
    """Each pixel adds the pixels it resembles, with a learnt weight that starts at 0 (paper, section 3.2)."""

    def __init__(self, channels: int, key_channels: int):
        super().__init__()
        self.attention = PixelAttention(channels, channels, key_channels, channels, norm=False, scaled=False)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return x + self.weight * self.attention(x, x)


class ChannelAttention(nn.Module):
    """Each channel adds the channels it differs from, with a learnt weight that starts at 0 (section 3.3)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        with full_precision(x) as wide:  # sums over all pixels leave the range of half precision
            channels = wide.flatten(2)  # (B, C, h w)
            likeness = channels @ channels.transpose(1, 2)  # (B, C, C)
            weights = (likeness.amax(dim=-1, keepdim=True) - likeness).softmax(dim=-1)
            gathered = (weights @ channels).reshape(x.shape).to(x.dtype)
        return x + self.weight * gathered


class DualDecoder(nn.Module):
    """Both attentions, each between two convolutions.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        key_channels: width of queries and keys of the position attention.
        index: maps that are used; several are resized to the first of them and concatenated.
        align_corners: how several maps are resized.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        key_channels: int,
        *,
        index: Sequence[int],
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__()
        self.index, self.align_corners = tuple(index), align_corners
        width = joined_channels(in_channels, index)
        self.position, self.channel = (
            nn.Sequential(ConvNormAct(width, channels), attention, ConvNormAct(channels, channels))
            for attention in (PositionAttention(channels, key_channels), ChannelAttention())
        )
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the (B, C_i, h_i, w_i) to two maps (B, D, h, w), of the position and the channel attention."""
        x = select_features(features, self.index, align_corners=self.align_corners)
        return self.position(x), self.channel(x)


class DANet(SegmentationModel):
    """`SegmentationModel` on the sum of two maps, each of which has a classifier of its own in training."""

    def __init__(self, backbone: nn.Module, decoder: DualDecoder, *, num_classes: int, **network: object):
        super().__init__(backbone, decoder, num_classes=num_classes, **network)
        self.position_classifier, self.channel_classifier = (
            nn.Conv2d(decoder.out_channels, num_classes, 1) for _ in range(2)
        )
        for classifier in (self.position_classifier, self.channel_classifier):
            init_classifier(classifier)

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)}; training adds both maps' own as "aux"."""
        position, channel = self.decoder(features)
        outputs = {"logits": self.classifier(self.dropout(position + channel))}
        if self.training:
            outputs["aux"] = [
                self.position_classifier(self.dropout(position)),
                self.channel_classifier(self.dropout(channel)),
            ]
        return outputs


@register_model
def danet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    key_channels: int = 64,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> DANet:
    """DANet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = DualDecoder(
        encoder.channels,
        channels,
        key_channels,
        index=in_index,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    return DANet(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


# Of the two maps as in the paper, then of the usual auxiliary head.
AUX_WEIGHTS = (1.0, 1.0, 0.4)
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3, "aux_weight": AUX_WEIGHTS},
    # MMSegmentation configs/danet.
    "paper": SGD_POLY | WITH_AUX | {"aux_weight": AUX_WEIGHTS},
}
