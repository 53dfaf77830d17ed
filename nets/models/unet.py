"""U-Net: climb back to the image's resolution, joining the encoder's map of each level on the way.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015, https://arxiv.org/abs/1505.04597

Deviations: the encoder is a classification network (VGG, ResNet, any timm network with a pyramid of maps) as in
TernausNet (Iglovikov, Shvets, 2018, https://arxiv.org/abs/1801.05746); convolutions are padded and batch-normalised;
maps are enlarged by nearest neighbour instead of a transposed convolution. The decoder's widths are those of
segmentation_models.pytorch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.catalogue import create_backbone
from nets.layers.conv import ConvNormAct
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class UNetDecoder(nn.Module):
    """One block per halving of resolution: enlarge, join the encoder's map if there is one, convolve twice.

    Args:
        in_channels: channels of the encoder's maps, finest first.
        strides: their strides in pixels.
        channels: width of the blocks, coarsest first; missing ones repeat the last.
    """

    def __init__(self, in_channels: list[int], strides: list[int], channels: tuple[int, ...]):
        super().__init__()
        skips = in_channels[-2::-1]  # the deepest map is the start, not a skip
        enlargements = max(strides[0].bit_length() - 1, 0)  # from the finest map to the image
        widths = [channels[min(i, len(channels) - 1)] for i in range(len(skips) + enlargements)]
        self.blocks = nn.ModuleList()
        previous = in_channels[-1]
        for i, width in enumerate(widths):
            joined = previous + (skips[i] if i < len(skips) else 0)
            self.blocks.append(nn.Sequential(ConvNormAct(joined, width), ConvNormAct(width, width)))
            previous = width
        self.out_channels = previous

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's (B, C_i, h_i, w_i) to (B, D, H, W) near the image's resolution."""
        x, skips = features[-1], features[-2::-1]
        for i, block in enumerate(self.blocks):
            if i < len(skips):
                # To the skip's own size: odd sizes round up on the way down.
                x = torch.cat([F.interpolate(x, size=skips[i].shape[-2:]), skips[i]], dim=1)
            else:
                x = F.interpolate(x, scale_factor=2)
            x = block(x)
        return x


@register_model
def unet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
) -> SegmentationModel:
    """U-Net on a VGG, a ResNet or any timm network with a pyramid of maps."""
    encoder = create_backbone(backbone, bands=bands)
    decoder = UNetDecoder(encoder.channels, encoder.strides, decoder_channels)
    return SegmentationModel(encoder, decoder, bands=bands, num_classes=num_classes, classifier_kernel=3)


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/unet: Cityscapes, total batch 16, no pretraining.
    "paper": {
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 16,
    },
}
