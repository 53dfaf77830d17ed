"""SegFormer: a hierarchical transformer whose maps of four resolutions a plain MLP joins.

Paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS 2021, https://arxiv.org/abs/2105.15203

Deviations: none; the decoder's widths are the authors' (256 for b0 and b1, 768 from b2; MMSegmentation has 256).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.catalogue import create_backbone
from nets.layers.conv import ConvNormAct
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

DECODER_CHANNELS = {"b0": 256, "b1": 256, "b2": 768, "b3": 768, "b4": 768, "b5": 768}


class MLPDecoder(nn.Module):
    """Project each map to one width, enlarge all to the finest, fuse by 1x1 (paper, section 3.2)."""

    def __init__(self, in_channels: list[int], channels: int):
        super().__init__()
        # A 1x1 convolution is the paper's linear layer on every pixel.
        self.project = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.fuse = ConvNormAct(len(in_channels) * channels, channels, 1)
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        size = features[0].shape[-2:]
        projected = [resize(layer(x), size) for layer, x in zip(self.project, features, strict=True)]
        return self.fuse(torch.cat(projected, dim=1))


@register_model
def segformer(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b0",
    decoder_channels: int | None = None,
    drop_path: float = 0.1,
    dropout: float = 0.1,
) -> SegmentationModel:
    """SegFormer b0 to b5; `decoder_channels` overrides the width that belongs to the size."""
    encoder = create_backbone(f"mit_{backbone}", bands=bands, stages=4, drop_path=drop_path)
    decoder = MLPDecoder(encoder.channels, decoder_channels or DECODER_CHANNELS[backbone])
    return SegmentationModel(encoder, decoder, bands=bands, num_classes=num_classes, dropout=dropout)


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 6e-4, "warmup_fraction": 0.05},
    # The authors' and MMSegmentation's configs/segformer: ADE20K, total batch 16.
    "paper": {
        "optimizer": "adamw",
        "lr": 6e-5,
        "weight_decay": 0.01,
        "head_lr_factor": 10.0,
        "no_decay": ("norm",),
        "scheduler": "poly",
        "poly_power": 1.0,
        "warmup_iters": 1500,
        "warmup_factor": 1e-6,
        "batch_size": 16,
    },
}
