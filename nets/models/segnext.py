"""SegNeXt: a convolutional attention encoder and a global context by matrix factorisation (Hamburger).

Paper: Guo et al., "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", NeurIPS
2022, https://arxiv.org/abs/2209.08575; the decoder is that of Geng et al., "Is Attention Better Than Matrix
Decomposition?", ICLR 2021, https://arxiv.org/abs/2109.04553

Deviations: in eval mode the factorisation starts from one fixed base for every image (`fixed_bases`, drawn in
float32 on the CPU with seed 0), where the authors draw a new one in every call, so that a result depends
neither on chance nor on the batch; the factorisation runs in float32 at least, as bfloat16 sums stall.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.mscan import MSCAN
from nets.layers.conv import ConvGroupNorm, set_norm_eps
from nets.layers.precision import full_precision
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Width of the decoder (the authors' configurations).
DECODER_CHANNELS = {"t": 256, "s": 256, "b": 512, "l": 1024}
DROP_PATH = {"t": 0.1, "s": 0.1, "b": 0.1, "l": 0.3}
EPS = 1e-6


class NMF(nn.Module):
    """Non-negative matrix factorisation of a map by multiplicative updates (Geng et al., algorithm 1).

    Args:
        channels: channels of the map.
        groups: groups of channels factorised apart, S.
        rank: columns of a base, R.
        train_steps, eval_steps: updates in training and in eval mode.

    Attributes:
        fixed_bases: start in eval mode, (S, D, R) for every image or (B * S, D, R); columns of length 1.
    """

    def __init__(self, channels: int, *, groups: int, rank: int, train_steps: int, eval_steps: int):
        super().__init__()
        self.shape = (groups, channels // groups, rank)
        self.train_steps, self.eval_steps = train_steps, eval_steps
        seeded = torch.Generator("cpu").manual_seed(0)
        # The device is named because networks are also built on the meta device.
        bases = torch.rand(self.shape, generator=seeded, dtype=torch.float32, device="cpu")
        self.register_buffer("fixed_bases", F.normalize(bases, dim=1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map non-negative (B, C, h, w) to its approximation of rank R, of the same shape."""
        with full_precision(x) as wide:
            return self._approximate(wide).to(x.dtype)

    def _approximate(self, x: Tensor) -> Tensor:
        groups, width, _ = self.shape
        data = x.reshape(x.shape[0] * groups, width, -1)  # (B * S, D, N)
        bases = self._start(data)  # (B * S, D, R)
        codes = (data.transpose(1, 2) @ bases).softmax(dim=-1)  # (B * S, N, R)
        for _ in range(self.train_steps if self.training else self.eval_steps):
            codes = _update(codes, data.transpose(1, 2), bases)
            bases = _update(bases, data, codes)
        codes = _update(codes, data.transpose(1, 2), bases)
        return (bases @ codes.transpose(1, 2)).reshape(x.shape)

    def _start(self, data: Tensor) -> Tensor:
        """Return bases (B * S, D, R), random in training."""
        if self.training:
            drawn = torch.rand((data.shape[0], *self.shape[1:]), dtype=data.dtype, device=data.device)
            return F.normalize(drawn, dim=1)
        bases = self.fixed_bases.to(data)
        own = bases.shape[0] != self.shape[0]  # bases of each image
        return bases if own else bases.repeat(data.shape[0] // self.shape[0], 1, 1)


def _update(factor: Tensor, data: Tensor, other: Tensor) -> Tensor:
    """Map `factor` to one that makes factor @ other^T nearer to `data`, without becoming negative."""
    return factor * (data @ other) / (factor @ (other.transpose(1, 2) @ other) + EPS)


class Hamburger(nn.Module):
    """Convolution -> factorisation -> convolution, added to the input."""

    def __init__(self, channels: int, norm_groups: int, **nmf: int):
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.nmf = NMF(channels, **nmf)
        self.leave = ConvGroupNorm(channels, channels, 1, norm_groups=norm_groups, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return F.relu(x + self.leave(self.nmf(F.relu(self.enter(x)))))


class HamDecoder(nn.Module):
    """Join the three coarser maps at stride 8, squeeze, Hamburger, align (paper, figure 3c)."""

    def __init__(
        self,
        in_channels: list[int],
        ham_channels: int,
        channels: int,
        *,
        norm_groups: int,
        norm_eps: float,
        align_corners: bool,
        **nmf: int,
    ):
        super().__init__()
        self.squeeze = ConvGroupNorm(sum(in_channels), ham_channels, 1, norm_groups=norm_groups)
        self.hamburger = Hamburger(ham_channels, norm_groups, **nmf)
        self.align = ConvGroupNorm(ham_channels, channels, 1, norm_groups=norm_groups)
        set_norm_eps(self, norm_eps)
        self.align_corners = align_corners
        self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h_0, w_0)."""
        size = features[0].shape[-2:]
        joined = torch.cat([resize(x, size, align_corners=self.align_corners) for x in features], dim=1)
        return self.align(self.hamburger(self.squeeze(joined)))


class SegNeXt(SegmentationModel):
    """`SegmentationModel` that shows the factorisation's start as `fixed_bases`."""

    @property
    def fixed_bases(self) -> Tensor:
        """Start of the factorisation in eval mode, (S, D, R) or (B * S, D, R), columns of length 1."""
        return self.decoder.hamburger.nmf.fixed_bases

    @fixed_bases.setter
    def fixed_bases(self, bases: Tensor) -> None:
        self.decoder.hamburger.nmf.fixed_bases = torch.as_tensor(bases)


@register_model
def segnext(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["t", "s", "b", "l"] = "t",
    decoder_channels: int | None = None,
    ham_channels: int | None = None,
    ham_groups: int = 1,
    ham_rank: int = 16,
    train_steps: int = 6,
    eval_steps: int = 7,
    norm_groups: int = 32,
    norm_eps: float = 1e-5,
    drop_path: float | None = None,
    dropout: float = 0.1,
    backbone_dropout: float = 0.0,
    backbone_norm_eps: float = 1e-5,
    align_corners: bool = False,
) -> SegNeXt:
    """SegNeXt t, s, b, l.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the MSCAN encoder.
        decoder_channels: width before the classifier; None is what belongs to the size.
        ham_channels: width of the Hamburger; None is `decoder_channels`.
        ham_groups: groups of channels factorised apart.
        ham_rank: rank of the factorisation.
        train_steps: updates of the factorisation in training.
        eval_steps: updates of the factorisation in eval mode.
        norm_groups: groups of the decoder's group norms.
        norm_eps: their epsilon.
        drop_path: rate of stochastic depth at the last block; None is what belongs to the size.
        dropout: rate of the channel dropout before the classifier.
        backbone_dropout: rate of dropout in the encoder's MLPs.
        backbone_norm_eps: epsilon of the encoder's batch norms.
        align_corners: how maps and logits are enlarged.
    """
    rate = DROP_PATH[backbone] if drop_path is None else drop_path
    encoder = MSCAN(f"mscan_{backbone}", bands=bands, stages=3, drop_path=rate, dropout=backbone_dropout)
    set_norm_eps(encoder, backbone_norm_eps)
    channels = decoder_channels or DECODER_CHANNELS[backbone]
    decoder = HamDecoder(
        encoder.channels,
        ham_channels or channels,
        channels,
        norm_groups=norm_groups,
        norm_eps=norm_eps,
        align_corners=align_corners,
        groups=ham_groups,
        rank=ham_rank,
        train_steps=train_steps,
        eval_steps=eval_steps,
    )
    return SegNeXt(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 6e-4, "warmup_fraction": 0.05},
    # The authors' and MMSegmentation's configs/segnext: ADE20K, total batch 16 on one GPU. The `pos_block`
    # that they spare from decay is no part of this network.
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
        "model_options": {"dropout": 0.1},
    },
    "paper_where": [
        ({"backbone": size}, {"model_options": {"drop_path": rate}}) for size, rate in DROP_PATH.items()
    ],
}
