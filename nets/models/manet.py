"""MA-Net: a U-Net whose deepest pixels attend to each other and whose skips weigh the channels they join.

Paper: Fan, Wang, Lei, Su, Yu, "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation",
IEEE Access 2020, https://ieeexplore.ieee.org/document/9201310

Deviations: the encoder is any classification network instead of the paper's own residual blocks; maps are
enlarged by nearest neighbour; widths are those of segmentation_models.pytorch. Its attention
(`attention=joint`) shares one softmax among all pairs of pixels and reads the result, pixels by channels, as
if it were channels by pixels; weights that were trained so need it.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.decoders.joining import Interpolation, JoinBlock, doublings, repeated, squeeze_excite
from nets.layers.conv import ConvNormAct
from nets.layers.pixel_attention import attend
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class PositionAttention(nn.Module):
    """Every pixel adds what it gathers from the pixels that resemble it (paper, figure 4).

    Args:
        channels: of the map.
        key_channels: width of queries and keys.
        joint: one softmax for all pairs, see above.
    """

    def __init__(self, channels: int, key_channels: int, *, joint: bool):
        super().__init__()
        self.joint = joint
        self.query, self.key = (nn.Conv2d(channels, key_channels, 1) for _ in range(2))
        self.value, self.project = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if not self.joint:
            return self.project(x + attend(query, key, value))
        scores = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # (B, h w, h w)
        weights = scores.flatten(1).softmax(dim=1).view_as(scores)
        gathered = weights @ value.flatten(2).transpose(1, 2)  # (B, h w, C)
        return self.project(x + gathered.reshape(x.shape))


class FusionAttention(nn.Module):
    """Reduce the coarse map to the finer one's channels, weigh these by both, join, convolve (figure 5).

    Args:
        in_channels: channels of the coarse map.
        joined: channels of the finer map.
        channels: width.
        norm: batch norm behind each convolution.
        enlarge: how the coarse map is enlarged.
    """

    def __init__(self, in_channels: int, joined: int, channels: int, *, norm: bool, enlarge: Interpolation):
        super().__init__()
        self.mode = enlarge
        self.reduce = nn.Sequential(
            ConvNormAct(in_channels, in_channels, norm=norm), ConvNormAct(in_channels, joined, 1, norm=norm)
        )
        self.coarse_weights, self.fine_weights = squeeze_excite(joined), squeeze_excite(joined)
        self.convs = nn.Sequential(
            ConvNormAct(2 * joined, channels, norm=norm), ConvNormAct(channels, channels, norm=norm)
        )

    def forward(self, x: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Map (B, C, h, w) and one finer (B, C', H, W) to (B, D, H, W)."""
        x = F.interpolate(self.reduce(x), size=finer[0].shape[-2:], mode=self.mode)
        x = x * (self.coarse_weights(x) + self.fine_weights(finer[0]))
        return self.convs(torch.cat([x, *finer], dim=1))


class MADecoder(nn.Module):
    """Attention on the deepest map, then a block per halving of resolution.

    Args:
        in_channels: channels of the encoder's maps, finest first.
        strides: their strides in pixels.
        channels: width of the blocks, coarsest first; missing ones repeat the last.
        key_channels: width of the attention's queries and keys.
        joint: as `PositionAttention` takes it.
        norm, enlarge: as `FusionAttention` takes them.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        *,
        key_channels: int,
        joint: bool,
        norm: bool,
        enlarge: Interpolation,
    ):
        super().__init__()
        skips = [*in_channels[-2::-1], *[0] * doublings(strides[0])]
        previous = in_channels[-1]
        self.center = PositionAttention(previous, key_channels, joint=joint)
        self.blocks = nn.ModuleList()
        for width, joined in zip(repeated(channels, len(skips)), skips, strict=True):
            block = FusionAttention if joined else JoinBlock
            self.blocks.append(block(previous, joined, width, norm=norm, enlarge=enlarge))
            previous = width
        self.out_channels = previous

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, H, W) near the image's resolution."""
        x, skips = self.center(features[-1]), features[-2::-1]
        for i, block in enumerate(self.blocks):
            x = block(x, skips[i : i + 1])
        return x


@register_model
def manet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet34",
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    key_channels: int = 64,
    attention: Literal["pixel", "joint"] = "pixel",
    norm: bool = True,
    enlarge: Interpolation = "nearest",
    dropout: float = 0.0,
    align_corners: bool = False,
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """MA-Net on any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: any catalogue backbone.
        decoder_channels: widths of the blocks, coarsest first; missing ones repeat the last.
        key_channels: width of the attention's queries and keys.
        attention: whose weights sum to one: those of each pixel, or those of all pairs.
        norm: batch norm behind each convolution of the decoder.
        enlarge: how maps are enlarged.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized to the image.
        backbone_options: arguments of the backbone's class.
    """
    encoder = create_configured_backbone(backbone, bands=bands, options=backbone_options)
    decoder = MADecoder(
        encoder.channels,
        encoder.strides,
        decoder_channels,
        key_channels=key_channels,
        joint=attention == "joint",
        norm=norm,
        enlarge=enlarge,
    )
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        classifier_kernel=3,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # The paper trains with Adam and a sum of cross-entropy and Dice; what it does not say is usual for these.
    "paper": {"optimizer": "adam", "lr": 1e-3, "scheduler": "poly", "loss": "ce+dice"},
}
