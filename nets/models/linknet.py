"""LinkNet: each encoder stage's map is added to its decoder stage's, so that a thin decoder is enough.

Paper: Chaurasia, Culurciello, "LinkNet: Exploiting Encoder Representations for Efficient Semantic
Segmentation", VCIP 2017, https://arxiv.org/abs/1707.03718

Versions: "paper" has the paper's decoder with three links, the last of its four blocks without enlargement,
and ends in two transposed convolutions; "smp" is that of segmentation_models.pytorch: a link to the stem's
map too, 4x4 transposed convolutions, and a block instead of the end.

Deviations: the ResNet-18 is timm's; any backbone fits. A map that does not have the link's odd size is
resized to it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.decoders.joining import doublings
from nets.layers.conv import ConvNormAct
from nets.layers.init import init_classifier
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Maps that the paper's decoder links.
LEVELS = 4
# Width before the classifier.
LAST = 32


class FullConv(nn.Sequential):
    """Transposed convolution -> batch norm -> ReLU; with stride 2 it doubles the resolution."""

    def __init__(self, in_channels: int, channels: int, *, kernel: int, stride: int, norm: bool, bias: bool):
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=1,
            output_padding=stride - 1 if kernel == 3 else 0,
            bias=bias or not norm,
        )
        if norm:
            self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)


class LinkBlock(nn.Sequential):
    """1x1 convolution to a quarter of the width, full convolution, 1x1 convolution (paper, figure 3)."""

    def __init__(self, in_channels: int, channels: int, *, norm: bool, **full: object):
        middle = max(in_channels // 4, 1)
        super().__init__(
            ConvNormAct(in_channels, middle, 1, norm=norm),
            FullConv(middle, middle, norm=norm, **full),
            ConvNormAct(middle, channels, 1, norm=norm),
        )


class LinkDecoder(nn.Module):
    """Blocks that climb from map to map and add the encoder's.

    Args:
        in_channels: channels of the encoder's maps, finest first.
        strides: their strides in pixels.
        version: see above.
        norm: batch norm behind each convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        version: Literal["paper", "smp"],
        norm: bool,
    ):
        super().__init__()
        paper, finest = version == "paper", in_channels[0]
        form = {"kernel": 3 if paper else 4, "norm": norm, "bias": not paper}
        widths, steps = list(in_channels[::-1]), []
        for finer, coarser in zip(strides[-2::-1], strides[:0:-1], strict=True):
            steps.append(2 if coarser > finer else 1)
        if paper:
            widths.append(finest)
            steps.append(1)
        elif strides[0] > 1:
            missing = doublings(strides[0])
            widths += [finest] * (missing - 1) + [LAST]
            steps += [2] * missing
        self.blocks = nn.ModuleList(
            # A 4x4 kernel cannot keep the size.
            LinkBlock(before, width, stride=step, **(form if step == 2 else {**form, "kernel": 3}))
            for (before, width), step in zip(pairwise(widths), steps, strict=True)
        )
        self.out_channels = widths[-1]
        self.end = nn.Identity()
        if paper:
            enlarge = FullConv(finest, LAST, kernel=3, stride=2, norm=norm, bias=False)
            self.end = nn.Sequential(enlarge, ConvNormAct(LAST, LAST, 3, norm=norm))
            self.out_channels = LAST

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, H, W) near the image's resolution."""
        x, links = features[-1], features[-2::-1]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < len(links):
                x = resize(x, links[i].shape[-2:]) + links[i]
        return self.end(x)


@register_model
def linknet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet18",
    version: Literal["paper", "smp"] = "paper",
    norm: bool = True,
    dropout: float = 0.0,
    align_corners: bool = False,
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """LinkNet on any backbone; the paper's is resnet18.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: any catalogue backbone of four or more maps.
        version: the paper's decoder or that of segmentation_models.pytorch.
        norm: batch norm behind each convolution of the decoder.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized to the image.
        backbone_options: arguments of the backbone's class.
    """
    encoder = create_configured_backbone(
        backbone, bands=bands, stages=LEVELS if version == "paper" else None, options=backbone_options
    )
    decoder = LinkDecoder(encoder.channels, encoder.strides, version=version, norm=norm)
    network = SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
    )
    if version == "paper":
        network.classifier = nn.ConvTranspose2d(LAST, num_classes, 2, stride=2)
        init_classifier(network.classifier)
    return network


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # Paper, section 4: Cityscapes and CamVid, batch 10; with class weights 1 / log(1.02 + frequency).
    "paper": {
        "optimizer": "rmsprop",
        "lr": 5e-4,
        "momentum": 0.0,
        "weight_decay": 2e-4,
        "scheduler": "constant",
        "batch_size": 10,
        "loss": "ce",
    },
}
