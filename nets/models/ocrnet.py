"""OCRNet: each pixel looks at a description of every class, gathered where a coarse prediction sees it.

Paper: Yuan, Chen, Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020,
https://arxiv.org/abs/1909.11065

Deviations: on a ResNet the coarse prediction has a 3x3 convolution of 512 channels before its classifier, as
in the authors' code (the text has the classifier alone; MMSegmentation has 256 channels:
`coarse_channels=256`).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.backbones.hrnet import HRNET_SIZES, HRNet
from nets.decoders.fcn import FCNHead, joined_channels, select_features
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_classifier, init_weights
from nets.layers.pixel_attention import attend
from nets.layers.resize import resize
from nets.recipes import SGD_POLY
from nets.registry import plain, register_model
from nets.segmentation_model import SegmentationNetwork


def gather_regions(pixels: Tensor, coarse: Tensor) -> Tensor:
    """Map pixels (B, D, h, w) and coarse logits (B, K, h, w) to one mean pixel per class (B, D, K, 1).

    The weights of a class are its scores, normalised over the image (paper, section 3.2).
    """
    weights = coarse.flatten(2).softmax(dim=2)  # (B, K, h w)
    return (weights @ pixels.flatten(2).transpose(1, 2)).transpose(1, 2).unsqueeze(-1)


class ObjectContext(nn.Module):
    """Attention from pixels to class regions; the result is joined with the pixels (paper, section 3.2)."""

    def __init__(self, channels: int, key_channels: int):
        super().__init__()
        self.query, self.key = (
            nn.Sequential(ConvNormAct(channels, key_channels, 1), ConvNormAct(key_channels, key_channels, 1))
            for _ in range(2)
        )
        self.value = ConvNormAct(channels, key_channels, 1)
        self.project = ConvNormAct(key_channels, channels, 1)
        self.join = ConvNormAct(2 * channels, channels, 1)
        self.scale = key_channels**-0.5

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """Map (B, D, h, w) and (B, D, K, 1) to (B, D, h, w)."""
        query, key, value = self.query(pixels), self.key(regions), self.value(regions)
        context = attend(query, key, value, scale=self.scale)  # (B, D', h, w)
        return self.join(torch.cat([self.project(context), pixels], dim=1))


class OCRNet(SegmentationNetwork):
    """Backbone -> coarse prediction -> class regions -> attention of every pixel to them -> classifier.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first, with `.channels`.
        coarse_head: maps that list to coarse logits (B, K, h, w).
        bands: bands of an image.
        num_classes: number of classes.
        index: maps that the pixels are described by; several are resized to the first of them.
        channels: width of a pixel's description.
        key_channels: width inside the attention.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are resized.
        norm_eps: epsilon of the batch norms outside backbone and coarse head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        coarse_head: FCNHead,
        *,
        bands: int,
        num_classes: int,
        index: tuple[int, ...],
        channels: int,
        key_channels: int,
        dropout: float,
        align_corners: bool,
        norm_eps: float,
    ):
        super().__init__(bands, num_classes)
        self.backbone, self.coarse_head = backbone, coarse_head
        self.index, self.align_corners = index, align_corners
        self.describe = ConvNormAct(joined_channels(backbone.channels, index), channels, 3)
        self.context = ObjectContext(channels, key_channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        for module in (self.describe, self.context):
            init_weights(module)
            set_norm_eps(module, norm_eps)
        init_classifier(self.classifier)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}; training adds coarse ones as "aux"."""
        size = images.shape[-2:]
        features = self.backbone(self.normalize(images))
        coarse = self.coarse_head(features)  # (B, K, h, w)
        pixels = self.describe(select_features(features, self.index, align_corners=self.align_corners))
        # Backbones without dilation have the coarse prediction at a finer stride than the pixels.
        regions = gather_regions(pixels, resize(coarse, pixels.shape[-2:], align_corners=self.align_corners))
        logits = self.classifier(self.dropout(self.context(pixels, regions)))
        outputs = {"logits": resize(logits, size, align_corners=self.align_corners)}
        if self.training:
            outputs["aux"] = [resize(coarse, size, align_corners=self.coarse_head.align_corners)]
        return outputs


@register_model
def ocrnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["w18s", "w18", "w30", "w32", "w40", "w44", "w48", "w64"] | str = "w18",
    output_stride: int | None = None,
    channels: int = 512,
    key_channels: int = 256,
    in_index: tuple[int, ...] | None = None,
    coarse_channels: int | None = None,
    coarse_head: dict | None = None,
    dropout: float = 0.05,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    backbone_options: dict | None = None,
) -> OCRNet:
    """OCRNet on an HRNet ("w18s" to "w64"), a ResNet or any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: width of an HRNet, or the name of a backbone.
        output_stride: of a backbone that can be dilated, in pixels; None is 8 there.
        channels: width of a pixel's description.
        key_channels: width inside the attention.
        in_index: maps that describe the pixels; None is all of an HRNet, the deepest of others.
        coarse_channels: width of the coarse head; None is the sum of an HRNet's widths, 512 on others.
        coarse_head: further arguments of the coarse FCN head.
        dropout: rate of the channel dropout before both classifiers.
        align_corners: how maps and logits are resized.
        norm_eps: epsilon of the batch norms outside the backbone.
        backbone_options: the backbone stated one by one, as configurations of OpenMMLab do.
    """
    name = f"hrnet_{plain(backbone)}"
    if name in HRNET_SIZES:
        encoder = HRNet(name, bands=bands, **(backbone_options or {}))
        every = tuple(range(len(encoder.channels)))
        index, coarse = every, {"index": every, "kernel_size": 1, "channels": sum(encoder.channels)}
    else:
        encoder = create_dilated_backbone(
            backbone, bands=bands, stages=2, output_stride=output_stride, options=backbone_options
        )
        index, coarse = (-1,), {"index": (-2,), "channels": 512}
    if coarse_channels is not None:
        coarse["channels"] = coarse_channels
    coarse |= {"dropout": dropout, "align_corners": align_corners, "norm_eps": norm_eps} | (coarse_head or {})
    return OCRNet(
        encoder,
        FCNHead(encoder.channels, num_classes, **coarse),
        bands=bands,
        num_classes=num_classes,
        index=in_index or index,
        channels=channels,
        key_channels=key_channels,
        dropout=dropout,
        align_corners=align_corners,
        norm_eps=norm_eps,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3, "aux_weight": 0.4},
    # MMSegmentation configs/ocrnet, batch 16: HRNet on ADE20K 160k iterations, ResNet-101 on Cityscapes.
    # The auxiliary output is the coarse prediction.
    "paper": SGD_POLY | {"aux_weight": 0.4, "model_options": {"dropout": 0.0}},
    "paper_where": [
        ({"backbone": "resnet"}, {"lr": 0.02, "min_lr": 2e-4, "model_options": {"dropout": 0.1}}),
    ],
}
