"""Context encoding: a learnt dictionary describes the scene, and the description weighs the channels.

Zhang et al., "Context Encoding for Semantic Segmentation", CVPR 2018, https://arxiv.org/abs/1803.08904
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.precision import full_precision
from nets.layers.resize import resize
from nets.segmentation_model import SegmentationModel


class Encoding(nn.Module):
    """Sums of the pixels' differences from codewords, each pixel shared out among them (paper, equation 1).

    Args:
        channels: channels of the map.
        codes: number of codewords.
    """

    def __init__(self, channels: int, codes: int):
        super().__init__()
        bound = (codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, N, C), N codewords."""
        with full_precision(x) as wide:
            pixels = wide.flatten(2).transpose(1, 2)  # (B, h w, C)
            codewords = self.codewords.to(wide.dtype)
            # |x - c|^2 = |x|^2 - 2 x c + |c|^2: the differences of all pairs would not fit into memory.
            squares = pixels.square().sum(2, keepdim=True) + codewords.square().sum(1)
            distances = squares - 2 * pixels @ codewords.T  # (B, h w, N)
            weights = (self.scale.to(wide.dtype) * distances).softmax(dim=2)
            sums = weights.transpose(1, 2) @ pixels  # (B, N, C)
            return (sums - weights.sum(1).unsqueeze(2) * codewords).to(x.dtype)


class EncodingDecoder(nn.Module):
    """Convolution -> encoding -> channels weighed by it (paper, figure 2).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        index: map that is used.
        lateral_index: finer maps that are joined with it.
        codes: number of codewords.
        align_corners: how the lateral maps are resized.
        norm_eps: epsilon of the batch norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        index: int = -1,
        lateral_index: Sequence[int] = (),
        codes: int = 32,
        align_corners: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.index, self.lateral_index, self.align_corners = index, tuple(lateral_index), align_corners
        self.enter = ConvNormAct(in_channels[index], channels)
        self.laterals = nn.ModuleList(ConvNormAct(in_channels[i], channels, 1) for i in lateral_index)
        self.fuse = ConvNormAct((len(lateral_index) + 1) * channels, channels) if lateral_index else None
        self.project = ConvNormAct(channels, channels, 1)
        self.encoding = Encoding(channels, codes)
        self.norm = nn.BatchNorm1d(codes)
        self.gate = nn.Linear(channels, channels)
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map and the scene's description (B, D)."""
        x = self.enter(features[self.index])
        if self.fuse is not None:
            laterals = [
                resize(lateral(features[i]), x.shape[-2:], align_corners=self.align_corners)
                for lateral, i in zip(self.laterals, self.lateral_index, strict=True)
            ]
            x = self.fuse(torch.cat([x, *laterals], dim=1))
        codes = self.norm(self.encoding(self.project(x)))  # (B, N, D)
        scene = F.relu(codes).mean(1)  # (B, D)
        gate = self.gate(scene).sigmoid()[..., None, None]  # (B, D, 1, 1)
        return F.relu(x + x * gate), scene


class EncodingModel(SegmentationModel):
    """`SegmentationModel` whose decoder also describes the scene, from which present classes are told.

    Training adds "class_presence": logits (B, K), one per class, for a binary loss on whether the image shows
    it.

    Args:
        backbone, decoder, bands, num_classes: as for `SegmentationModel`; the decoder returns map and scene.
        presence: whether present classes are told.
        network: further arguments of `SegmentationModel`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        bands: int,
        num_classes: int,
        presence: bool,
        **network: object,
    ):
        super().__init__(backbone, decoder, bands=bands, num_classes=num_classes, **network)
        self.presence = nn.Linear(decoder.out_channels, num_classes) if presence else None

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)}; training adds "class_presence" (B, K)."""
        x, scene = self.decoder(features)
        outputs = {"logits": self.classifier(self.dropout(x))}
        if self.training and self.presence is not None:
            outputs["class_presence"] = self.presence(scene)
        return outputs
