"""ERFNet: residual blocks of 3x1 and 1x3 convolutions, deep enough for context, fast enough for real time.

Paper: Romera, Alvarez, Bergasa, Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
Segmentation", IEEE Transactions on Intelligent Transportation Systems (TITS 2018),
https://ieeexplore.ieee.org/document/8063438

Layers are those of table 1 and of the authors' code (https://github.com/Eromera/erfnet_pytorch).

Bands: for RGB the first block has 13 filters beside the 3 pooled bands, 16 channels. Any other number of
bands is pooled as well, beside max(13, 16 - bands) filters (`first_filters` states another number).

Deviations: none in the network (`head=deconv`). The pooled side of a downsampling block is resized where an
odd side was rounded down. The encoder is not trained alone first. `head=conv` is MMSegmentation's: a 3x3
convolution and a classifier at half of the resolution instead of the last transposed convolution.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.errors import UserError
from nets.layers.conv import set_norm_eps
from nets.layers.init import init_classifier, init_weights
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import register_model
from nets.segmentation_model import ScoringModel, SegmentationModel

FILTERS, WIDTH = 13, 16
EPS = 1e-3
HEAD = {"num_convs": 1, "concat_input": False, "index": (-1,)}


class Downsampling(nn.Module):
    """Strided convolution and pooled input side by side, then norm and ReLU.

    Args:
        in_channels: channels of the input, the first of which are pooled.
        channels: channels of the result.
        filters: of the convolution.
    """

    def __init__(self, in_channels: int, channels: int, filters: int):
        super().__init__()
        self.pooled = channels - filters
        self.conv = nn.Conv2d(in_channels, filters, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / 2, w / 2), rounded up."""
        filtered = self.conv(x)
        pooled = resize(F.max_pool2d(x[:, : self.pooled], 2), filtered.shape[-2:])
        return F.relu(self.norm(torch.cat([filtered, pooled], dim=1)))


class FactorizedBlock(nn.Module):
    """Non-bottleneck-1D: two 3x3 convolutions, each as 3x1 and 1x3, and a shortcut (paper, figure 2c).

    Args:
        channels: width.
        dilation: of the second pair.
        dropout: rate of the channel dropout on the branch.
    """

    def __init__(self, channels: int, *, dilation: int = 1, dropout: float = 0.0):
        super().__init__()

        def pair(rate: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, channels, (3, 1), padding=(rate, 0), dilation=(rate, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, (1, 3), padding=(0, rate), dilation=(1, rate)),
                nn.BatchNorm2d(channels),
            ]

        self.branch = nn.Sequential(*pair(1), nn.ReLU(inplace=True), *pair(dilation), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return F.relu(x + self.branch(x))


class Upsampling(nn.Module):
    """Transposed convolution -> norm -> ReLU."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, channels, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, 2h, 2w)."""
        return F.relu(self.norm(self.conv(x)))


class ERFNetEncoder(nn.Module):
    """Layers 1 to 22 of the paper's table 1: everything but the last transposed convolution.

    Args:
        bands: bands of an image.
        widths: channels of the downsampling blocks.
        blocks: factorized blocks behind each of them but the first; the last ones are dilated.
        dilations: of these, in turn.
        up_widths: channels of the upsampling blocks.
        up_blocks: factorized blocks behind each of them.
        first_filters: filters of the first block; None is as above.
        dropouts: rates in the plain and in the dilated blocks of the encoder.

    Attributes:
        channels, strides: of the one map.
    """

    def __init__(
        self,
        *,
        bands: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        dilations: tuple[int, ...],
        up_widths: tuple[int, ...],
        up_blocks: tuple[int, ...],
        first_filters: int | None,
        dropouts: tuple[float, float],
    ):
        super().__init__()
        self.name = "erfnet"
        filters = max(FILTERS, widths[0] - bands) if first_filters is None else first_filters
        layers: list[nn.Module] = [Downsampling(bands, filters + bands, filters)]
        before = filters + bands
        for i, (width, count) in enumerate(zip(widths[1:], blocks, strict=True)):
            # Where the bands of an image need more channels than the paper has, half of them are pooled.
            layers.append(Downsampling(before, width, width - before if before < width else width // 2))
            if i == len(blocks) - 1:
                rates = dilations * (count // len(dilations))
                layers += [FactorizedBlock(width, dilation=rate, dropout=dropouts[1]) for rate in rates]
            else:
                layers += [FactorizedBlock(width, dropout=dropouts[0]) for _ in range(count)]
            before = width
        self.encoder, self.decoder = nn.Sequential(*layers), nn.Sequential()
        for width, count in zip(up_widths, up_blocks, strict=True):
            self.decoder.append(Upsampling(before, width))
            self.decoder.extend(FactorizedBlock(width) for _ in range(count))
            before = width
        self.channels, self.strides = [before], [2 ** (len(widths) - len(up_widths))]
        set_norm_eps(self, EPS)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to one map (B, D, H / 2, W / 2) of a side that is a multiple of 4, or more."""
        return [self.decoder(self.encoder(x))]


class LastDeconvolution(nn.Module):
    """The last transposed convolution, which classifies."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.classifier = nn.ConvTranspose2d(in_channels, num_classes, 2, stride=2)
        init_classifier(self.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the one map (B, C, h, w) to logits (B, K, 2h, 2w)."""
        return self.classifier(features[0])


@register_model
def erfnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["erfnet"] = "erfnet",
    head: Literal["deconv", "conv"] = "deconv",
    widths: tuple[int, ...] = (16, 64, 128),
    blocks: tuple[int, ...] = (5, 8),
    dilations: tuple[int, ...] = (2, 4, 8, 16),
    up_widths: tuple[int, ...] = (64, 16),
    up_blocks: tuple[int, ...] = (2, 2),
    first_filters: int | None = None,
    early_dropout: float = 0.03,
    dropout: float = 0.3,
    channels: int = 128,
    head_dropout: float = 0.1,
    align_corners: bool = False,
    head_options: dict | None = None,
    aux_heads: tuple[dict, ...] = (),
) -> ScoringModel | SegmentationModel:
    """ERFNet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: there is one.
        head: see above.
        widths: channels of the downsampling blocks.
        blocks: factorized blocks behind each of them but the first.
        dilations: of the last of these, in turn.
        up_widths: channels of the upsampling blocks.
        up_blocks: factorized blocks behind each of them.
        first_filters: filters of the first block; None is as above.
        early_dropout: rate of the channel dropout in the encoder's plain blocks.
        dropout: rate in its dilated blocks.
        channels: conv: width of the head.
        head_dropout: conv: rate of the channel dropout before the classifier.
        align_corners: conv: how the logits are resized.
        head_options: conv: further arguments of the head.
        aux_heads: conv: arguments of auxiliary FCN heads.
    """
    if (len(blocks), len(up_blocks), 1) != (len(widths) - 1, len(up_widths), len(widths) - len(up_widths)):
        raise UserError(
            f"erfnet: widths={widths}, blocks={blocks}, up_widths={up_widths}, up_blocks={up_blocks} are "
            "given; all but widths need one number less than it has"
        )
    encoder = ERFNetEncoder(
        bands=bands,
        widths=widths,
        blocks=blocks,
        dilations=dilations,
        up_widths=up_widths,
        up_blocks=up_blocks,
        first_filters=first_filters,
        dropouts=(early_dropout, dropout),
    )
    maps = encoder.channels
    if head == "deconv":
        decoder = LastDeconvolution(maps[0], num_classes)
        return ScoringModel(encoder, decoder, bands=bands, num_classes=num_classes)
    return SegmentationModel(
        encoder,
        FCNDecoder(maps, channels, align_corners=align_corners, **(HEAD | (head_options or {}))),
        bands=bands,
        num_classes=num_classes,
        dropout=head_dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(maps, num_classes, aux=False, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/erfnet: Cityscapes from scratch, 160k iterations, total batch 16.
    "paper": SGD_POLY | {"model_options": {"head": "conv", "early_dropout": 0.1, "dropout": 0.1}},
}
