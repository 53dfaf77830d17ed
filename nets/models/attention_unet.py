"""Attention U-Net: what a coarser level has found decides which pixels of a skip are let through.

Paper: Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018,
https://arxiv.org/abs/1804.03999; the authors' code: https://github.com/ozan-oktay/Attention-Gated-Networks

Backbones: "none" is the U-Net of the paper; any other name is a classification network as the encoder.

Deviations: images instead of volumes, so that "none" has the widths of the U-Net for images; the authors'
network for volumes has a quarter of them (`width=16`). Convolutions before a batch norm have no bias.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.backbones.unet import UNetEncoder
from nets.decoders.joining import JoinBlock, doublings, repeated
from nets.decoders.side_outputs import SideOutputModel
from nets.layers.conv import ConvNormAct
from nets.layers.resize import resize
from nets.registry import plain, register_model


class AttentionGate(nn.Module):
    """Weigh a skip's pixels by what they and a coarser map say together (paper, figure 2).

    Args:
        channels: of the skip.
        gate_channels: of the coarser map.
    """

    def __init__(self, channels: int, gate_channels: int):
        super().__init__()
        self.own = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.gate = nn.Conv2d(gate_channels, channels, 1)
        self.weigh = nn.Conv2d(channels, 1, 1)
        # The authors' output transformation, and their combination of gates, here of one.
        self.transform = nn.Sequential(
            ConvNormAct(channels, channels, 1, act=False), ConvNormAct(channels, channels, 1)
        )

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Map (B, C, H, W) and the coarser (B, C', h, w) to (B, C, H, W)."""
        own = self.own(skip)  # (B, C, H / 2, W / 2)
        weights = self.weigh(F.relu(own + resize(self.gate(coarse), own.shape[-2:]))).sigmoid()
        return self.transform(skip * resize(weights, skip.shape[-2:]))


class GatedDecoder(nn.Module):
    """One block per halving of resolution, its skip gated but for the finest one (paper, figure 1).

    Args:
        in_channels: channels of the encoder's maps, finest first.
        strides: their strides in pixels.
        channels: width of the blocks, coarsest first; missing ones repeat the last.

    Attributes:
        channels: of the blocks' maps, finest first.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: Sequence[int]):
        super().__init__()
        previous, skips = in_channels[-1], [*in_channels[-2::-1], *[0] * doublings(strides[0])]
        widths = repeated(channels, len(skips))
        gates = len(in_channels) - 2
        self.signal = ConvNormAct(previous, previous, 1)
        self.gates, self.blocks = nn.ModuleList(), nn.ModuleList()
        for i, (skip, width) in enumerate(zip(skips, widths, strict=True)):
            if i < gates:
                self.gates.append(AttentionGate(skip, previous))
            self.blocks.append(JoinBlock(previous, skip, width, enlarge="bilinear"))
            previous = width
        self.channels = widths[::-1]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the encoder's (B, C_i, h_i, w_i) to (B, D_i, H_i, W_i), finest first, near the image's size."""
        x, skips, maps = features[-1], features[-2::-1], []
        for i, block in enumerate(self.blocks):
            finer = skips[i : i + 1]
            if i < len(self.gates):
                finer = [self.gates[i](finer[0], x if i else self.signal(x))]
            x = block(x, finer)
            maps.append(x)
        return maps[::-1]


@register_model
def attention_unet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["none"] | str = "none",
    width: int = 64,
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    dropout: float = 0.0,
    align_corners: bool = False,
    aux: bool = False,
    backbone_options: dict | None = None,
) -> SideOutputModel:
    """Attention U-Net: the original (`backbone=none`), or on any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: "none" or any catalogue backbone.
        width: of the original's finest level, doubled at each coarser one.
        decoder_channels: widths on a classification network, coarsest level first.
        dropout: rate of the channel dropout before the levels' classifiers.
        align_corners: how scores and logits are enlarged.
        aux: training gives the levels' scores too; they are joined in any case.
        backbone_options: arguments of the backbone's class.
    """
    if plain(backbone) == "none":
        encoder = UNetEncoder(
            bands=bands, **{"base_channels": width, "norm": True, **(backbone_options or {})}
        )
        decoder_channels = tuple(encoder.channels[-2::-1])
    else:
        encoder = create_configured_backbone(backbone, bands=bands, options=backbone_options)
    return SideOutputModel(
        encoder,
        GatedDecoder(encoder.channels, encoder.strides, decoder_channels),
        bands=bands,
        num_classes=num_classes,
        kernel=1,
        aux=aux,
        dropout=dropout,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # The authors' configs/config_unet_ct_multi_att_dsv.json.
    "paper": {
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 1e-6,
        "scheduler": "step",
        "step_ratio": 0.5,
        "batch_size": 2,
        "loss": "dice",
    },
}
