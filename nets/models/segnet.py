"""SegNet: the decoder puts each value back where the encoder's max pooling found it.

Paper: Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", PAMI 2017, https://arxiv.org/abs/1511.00561

Parameters: the 3x3 kernels of VGG16's 13 convolutions are 14,710,464 numbers for 3 bands; the decoder
mirrors all of them but the first, whose place the classifier takes: 14,708,736. With the encoder's biases,
scale and shift of every norm and a classifier of 64 x 9 K + K they are 29,446,220 for 12 classes; table 3
of ENet's paper (https://arxiv.org/abs/1606.02147) states 29.46 M.

The stages are those of section 3 and of the authors' `segnet_train.prototxt`
(https://github.com/alexgkendall/SegNet-Tutorial), ReLU in the decoder included.

Deviations: convolutions of the decoder have no bias in front of a norm. Classes are weighted only where the
run asks for it. `batch_norm=false` leaves all norms out; VGG11, 13 and 19 are mirrored by the same rule.
"""

from typing import Literal

from torch import Tensor, nn

from nets.backbones.catalogue import create_backbone
from nets.layers.conv import ConvNormAct
from nets.layers.unpool import MaxUnpool
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Convolutions per stage, finest first (Simonyan, Zisserman, ICLR 2015, table 1).
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class SegNetDecoder(nn.Module):
    """One stage per pooling, coarsest first: unpool, then as many convolutions as the encoder's stage has.

    The finest stage has one less: the classifier is its last.

    Args:
        channels: widths of the encoder's stages, finest first.
        depths: their numbers of convolutions.
        norm: batch norm behind each convolution.
    """

    def __init__(self, channels: list[int], depths: tuple[int, ...], *, norm: bool):
        super().__init__()
        self.stages = nn.ModuleList()
        for i in reversed(range(len(depths))):
            widths = [channels[i]] * (depths[i] - 1) + ([channels[i - 1]] if i else [])
            before = [channels[i], *widths]
            self.stages.append(
                nn.Sequential(*(ConvNormAct(a, b, norm=norm) for a, b in zip(before, widths, strict=False)))
            )
        self.unpool = MaxUnpool()
        self.out_channels = channels[0]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's (B, C_i, H / 2^i, W / 2^i) and its last pooled map to (B, C_0, H, W)."""
        *pooled, x = features
        for stage, before in zip(self.stages, reversed(pooled), strict=True):
            x = stage(self.unpool(x, before))
        return x


@register_model
def segnet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = "vgg16",
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> SegmentationModel:
    """SegNet; the encoder's weights may be those of ImageNet (--PRETRAIN_BACKBONE imagenet), as in the paper.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: the encoder; the paper's is vgg16.
        batch_norm: batch norm behind each convolution, as in the paper.
        dropout: rate of the channel dropout before the classifier.
    """
    encoder = create_backbone(f"{backbone}_bn" if batch_norm else backbone, bands=bands)
    return SegmentationModel(
        encoder,
        SegNetDecoder(encoder.channels[:-1], DEPTHS[backbone], norm=batch_norm),
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        classifier_kernel=3,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # PaddleSeg configs/segnet: Cityscapes from scratch, 2 images per GPU, of which it usually has 4. The
    # authors' segnet_solver.prototxt, for CamVid: 1e-3 throughout, decay 5e-4, batch 4.
    "paper": {
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 0.0,
        "batch_size": 8,
        "loss": "ce",
    },
}
