"""SegFormer: a hierarchical transformer whose maps of four resolutions a plain MLP joins.

Paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS 2021, https://arxiv.org/abs/2105.15203

Deviations: none; the decoder's widths are the authors' (256 for b0 and b1, 768 from b2). MMSegmentation's
decoder (`decoder=conv`) has batch norm and ReLU behind each projection and 256 channels for all sizes, and
1e-6 in all layer norms; Hugging Face has the authors' decoder and 1e-5 in all.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.mit import MiT
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

DECODER_CHANNELS = {"b0": 256, "b1": 256, "b2": 768, "b3": 768, "b4": 768, "b5": 768}


class MLPDecoder(nn.Module):
    """Project each map to one width, enlarge all to the finest, fuse by 1x1 (paper, section 3.2).

    Args:
        in_channels: channels of the maps, finest first.
        channels: common width.
        norm: put batch norm and ReLU behind each projection.
        align_corners: how the maps are enlarged.
    """

    def __init__(self, in_channels: list[int], channels: int, *, norm: bool, align_corners: bool):
        super().__init__()
        # A 1x1 convolution is the paper's linear layer on every pixel.
        self.project = nn.ModuleList(
            ConvNormAct(width, channels, 1) if norm else nn.Conv2d(width, channels, 1)
            for width in in_channels
        )
        self.fuse = ConvNormAct(len(in_channels) * channels, channels, 1)
        self.align_corners = align_corners
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        size = features[0].shape[-2:]
        projected = [
            resize(layer(x), size, align_corners=self.align_corners)
            for layer, x in zip(self.project, features, strict=True)
        ]
        return self.fuse(torch.cat(projected, dim=1))


@register_model
def segformer(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b0",
    decoder: Literal["mlp", "conv"] = "mlp",
    decoder_channels: int | None = None,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    align_corners: bool = False,
    inner_align_corners: bool | None = None,
    norm_eps: float = 1e-5,
    backbone_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    embed_eps: float = 1e-5,
    block_eps: float = 1e-6,
) -> SegmentationModel:
    """SegFormer b0 to b5.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the Mix Transformer.
        decoder: "mlp" is the paper's, "conv" MMSegmentation's.
        decoder_channels: width of the decoder; None is what belongs to size and decoder.
        drop_path: rate of stochastic depth at the last block.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are enlarged.
        inner_align_corners: how maps are, where that is not as the logits.
        norm_eps: epsilon of the decoder's batch norms.
        backbone_dropout: rate of dropout in the encoder.
        attention_dropout: rate of dropout on its attention's weights.
        embed_eps: epsilon of the norms after patch embedding and sequence reduction.
        block_eps: epsilon of the encoder's other norms.
    """
    name = f"mit_{backbone}"
    encoder = MiT(
        name,
        bands=bands,
        drop_path=drop_path,
        dropout=backbone_dropout,
        attention_dropout=attention_dropout,
        embed_eps=embed_eps,
        block_eps=block_eps,
    )
    width = decoder_channels or (DECODER_CHANNELS[backbone] if decoder == "mlp" else 256)
    inner = align_corners if inner_align_corners is None else inner_align_corners
    head = MLPDecoder(encoder.channels, width, norm=decoder == "conv", align_corners=inner)
    set_norm_eps(head, norm_eps)
    return SegmentationModel(
        encoder, head, bands=bands, num_classes=num_classes, dropout=dropout, align_corners=align_corners
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 6e-4, "warmup_fraction": 0.05},
    # The authors' and MMSegmentation's configs/segformer: ADE20K, total batch 16. The `pos_block` that they
    # spare from decay is no part of this network.
    "paper": {
        "optimizer": "adamw",
        "lr": 6e-5,
        "weight_decay": 0.01,
        "head_lr_factor": 10.0,
        "no_decay": ("norm",),
        "scheduler": "poly",
        "poly_power": 1.0,
        "min_lr": 0.0,
        "warmup_iters": 1500,
        "warmup_factor": 1e-6,
        "batch_size": 16,
        "loss": "ce",
        "model_options": {"drop_path": 0.1, "dropout": 0.1},
    },
}
