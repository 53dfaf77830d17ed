"""ENet: thin residual bottlenecks that shrink the image early, for real time.

Paper: Paszke, Chaurasia, Kim, Culurciello, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", 2016, https://arxiv.org/abs/1606.02147

The stages are those of table 1. What it leaves open is as in the authors' training code
(https://github.com/e-lab/ENet-training): a bottleneck is a quarter as wide inside as its output, the last
transposed convolution is 2x2, norms have an epsilon of 1e-3.

Bands: for RGB the initial block has 13 filters beside the 3 pooled bands, 16 channels. Any other number of
bands is pooled as well, beside max(13, 16 - bands) filters: never fewer than the paper's 13 filters and 16
channels. Bottlenecks 5.0, which unpools by this block's maxima, and 5.1 are as wide as this block.

Parameters: 337,519 in the encoder, 25,200 in the decoder and 4 x 16 K + K in the last transposed convolution:
364,019 for 20 classes. The authors' code gives its middle convolutions biases (693) and its decoder no PReLU
(336); with the classifier on which the encoder is first trained alone (128 K + K) it has 366,956, the paper's
0.37 M (table 3).

Deviations: no convolution in front of a norm has a bias; the paper leaves the biases of projections out,
but a norm cancels any. As the text of the paper has it, and the authors' code has not, there are PReLU and
dropout in the decoder too. The encoder is not trained alone first.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import norm_prelu
from nets.layers.init import init_classifier, init_weights
from nets.layers.margins import pad
from nets.layers.unpool import MaxUnpool
from nets.registry import register_model
from nets.segmentation_model import ScoringModel

FILTERS, WIDTH = 13, 16
REDUCTION = 4
EPS = 1e-3
# Bottlenecks 2.1 to 2.8, and stage 3 once more: dilation and kernel; 5 stands for 5x1 and 1x5.
CONTEXT = ((1, 3), (2, 3), (1, 5), (4, 3), (1, 3), (8, 3), (1, 5), (16, 3))


def _conv(width: int, dilation: int, kernel: int) -> nn.Module:
    """Return the convolution in the middle of a bottleneck."""
    if kernel == 3:
        return nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(
        nn.Conv2d(width, width, (kernel, 1), padding=(kernel // 2, 0), bias=False),
        nn.Conv2d(width, width, (1, kernel), padding=(0, kernel // 2), bias=False),
    )


def _branch(enter: nn.Conv2d, middle: nn.Module, channels: int, dropout: float) -> nn.Sequential:
    """Return reduce -> convolve -> expand, each with its norm (figure 2b)."""
    width = enter.out_channels
    return nn.Sequential(
        enter,
        norm_prelu(width, EPS),
        middle,
        norm_prelu(width, EPS),
        nn.Conv2d(width, channels, 1, bias=False),
        nn.BatchNorm2d(channels, eps=EPS),
        nn.Dropout2d(dropout),
    )


class InitialBlock(nn.Module):
    """Strided convolution and pooled bands side by side (figure 2a)."""

    def __init__(self, bands: int):
        super().__init__()
        filters = max(FILTERS, WIDTH - bands)
        self.out_channels = filters + bands
        self.conv = nn.Conv2d(bands, filters, 3, stride=2, padding=1, bias=False)
        self.act = norm_prelu(self.out_channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / 2, W / 2), rounded up."""
        return self.act(torch.cat([self.conv(x), F.max_pool2d(x, 2, ceil_mode=True)], dim=1))


class Bottleneck(nn.Module):
    """Residual bottleneck of one resolution.

    Args:
        channels: width outside.
        dilation, kernel: of the convolution in the middle; kernel 5 is asymmetric.
        dropout: rate of the channel dropout on the branch.
    """

    def __init__(self, channels: int, *, dilation: int = 1, kernel: int = 3, dropout: float):
        super().__init__()
        width = channels // REDUCTION
        enter = nn.Conv2d(channels, width, 1, bias=False)
        self.branch = _branch(enter, _conv(width, dilation, kernel), channels, dropout)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.act(x + self.branch(x))


class Downsampling(nn.Module):
    """Bottleneck that halves the resolution; its other side is pooled and filled up with zero channels."""

    def __init__(self, in_channels: int, channels: int, *, dropout: float):
        super().__init__()
        width = channels // REDUCTION
        self.channels = channels
        enter = nn.Conv2d(in_channels, width, 2, stride=2, bias=False)
        self.branch = _branch(enter, _conv(width, 1, 3), channels, dropout)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h / 2, w / 2), rounded down."""
        pooled = F.max_pool2d(x, 2)[:, : self.channels]  # of very many bands the first
        filled = F.pad(pooled, (0, 0, 0, 0, 0, self.channels - pooled.shape[1]))
        return self.act(filled + self.branch(x))


class Upsampling(nn.Module):
    """Bottleneck that doubles the resolution; its other side is projected and unpooled."""

    def __init__(self, in_channels: int, channels: int, *, dropout: float):
        super().__init__()
        width = channels // REDUCTION
        enter = nn.Conv2d(in_channels, width, 1, bias=False)
        middle = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.branch = _branch(enter, middle, channels, dropout)
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels, eps=EPS)
        )
        self.unpool = MaxUnpool()
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Map (B, C, h, w) to the size (B, D, 2h, 2w) of the map that was pooled."""
        branch = self.branch(x)
        # An odd size was rounded down on the way down: the last row or column is repeated.
        branch = pad(branch, pooled.shape[-2:], replicate=True)
        return self.act(self.unpool(self.project(x), pooled) + branch)


class ENetEncoder(nn.Module):
    """Initial block and stages 1 to 3.

    Args:
        bands: bands of an image.
        early_dropout: rate of the channel dropout in stage 1.
        dropout: rate in stages 2 and 3.

    Attributes:
        channels, strides: of the maps before each pooling and of the last one, finest first.
    """

    def __init__(self, *, bands: int, early_dropout: float, dropout: float):
        super().__init__()
        self.name = "enet"
        self.initial = InitialBlock(bands)
        self.channels, self.strides = [self.initial.out_channels, 64, 128], [2, 4, 8]
        self.stage1 = nn.Sequential(
            Downsampling(self.channels[0], 64, dropout=early_dropout),
            *(Bottleneck(64, dropout=early_dropout) for _ in range(4)),
        )
        self.stage2 = nn.Sequential(Downsampling(64, 128, dropout=dropout), *_context(128, dropout))
        self.stage3 = nn.Sequential(*_context(128, dropout))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to maps at strides 2, 4 and 8."""
        initial = self.initial(x)
        fine = self.stage1(initial)
        return [initial, fine, self.stage3(self.stage2(fine))]


def _context(channels: int, dropout: float) -> list[Bottleneck]:
    return [Bottleneck(channels, dilation=d, kernel=k, dropout=dropout) for d, k in CONTEXT]


class ENetDecoder(nn.Module):
    """Stages 4 and 5 and the last transposed convolution, which classifies."""

    def __init__(self, channels: list[int], num_classes: int, *, dropout: float):
        super().__init__()
        finest, fine, deep = channels
        self.up4 = Upsampling(deep, fine, dropout=dropout)
        self.stage4 = nn.Sequential(*(Bottleneck(fine, dropout=dropout) for _ in range(2)))
        self.up5 = Upsampling(fine, finest, dropout=dropout)
        self.stage5 = Bottleneck(finest, dropout=dropout)
        init_weights(self)
        self.classifier = nn.ConvTranspose2d(finest, num_classes, 2, stride=2)
        init_classifier(self.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to logits (B, K, H, W), an odd size rounded up."""
        initial, fine, x = features
        x = self.stage4(self.up4(x, fine))
        x = self.stage5(self.up5(x, initial))
        return self.classifier(x)


@register_model
def enet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["enet"] = "enet",
    early_dropout: float = 0.01,
    dropout: float = 0.1,
) -> ScoringModel:
    """ENet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: there is one.
        early_dropout: rate of the channel dropout up to the end of stage 1.
        dropout: rate behind it.
    """
    encoder = ENetEncoder(bands=bands, early_dropout=early_dropout, dropout=dropout)
    decoder = ENetDecoder(encoder.channels, num_classes, dropout=dropout)
    return ScoringModel(encoder, decoder, bands=bands, num_classes=num_classes)


RECIPE = {
    # With cross-entropy alone so small a network leaves out thin things; the authors weight classes by their
    # frequency. The Lovász loss does without frequencies, and its authors tune ENet by it: Berman et al.,
    # "The Lovász-Softmax Loss", CVPR 2018, https://arxiv.org/abs/1705.08790.
    "plain": {"optimizer": "adam", "lr": 5e-3, "loss": "ce+lovasz"},
    # PaddleSeg configs/enet: Cityscapes from scratch, 8 images per GPU, of which it usually has 4. The paper
    # (section 5.1): Adam 5e-4, decay 2e-4, batch 10, classes weighted, the encoder first.
    "paper": {
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 2e-4,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 0.0,
        "batch_size": 32,
        "loss": "ce",
    },
}
