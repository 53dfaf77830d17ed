"""A plain Vision Transformer with a simple feature pyramid, so that every decoder works with it.

Papers: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929; Li
et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), ECCV 2022,
https://arxiv.org/abs/2203.16527, section 3

Deviations: level i starts from the end of quarter i of the blocks instead of from the last block, as BEiT and
its followers do for segmentation; the deepest level keeps the patches' stride instead of halving it, because
some decoders use that level alone. A network whose patch is no multiple of four gives its four maps as they
are.
"""

import functools

import timm
import torch
from torch import Tensor, nn

from nets.backbones.staged import check_stages
from nets.backbones.timm_backbone import create_features, crop_maps, pad_to_multiple, size_arguments
from nets.errors import UserError
from nets.layers.init import init_weights
from nets.layers.norm import ChannelNorm

LEVELS = 4


def _enlarge(channels: int, doublings: int) -> nn.Sequential:
    """Return the transposed convolutions that enlarge a map `doublings` times by 2."""
    layers: list[nn.Module] = []
    for i in range(doublings):
        layers += [nn.ConvTranspose2d(channels, channels, 2, stride=2)]
        if i < doublings - 1:
            layers += [ChannelNorm(channels), nn.GELU()]
    return nn.Sequential(*layers)


class ViTPyramid(nn.Module):
    """A plain transformer of timm whose blocks' maps become four levels.

    Args:
        name: timm's own name.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all four.
        drop_path: rate of stochastic depth.
        pyramid: enlarge the two finest levels by 4 and 2; otherwise all maps have the patches' stride.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        drop_path: float = 0.0,
        pyramid: bool = True,
    ):
        super().__init__()
        count = check_stages(name, stages, LEVELS)
        depth = _depth(name)
        quarters = [depth * (i + 1) // LEVELS - 1 for i in range(LEVELS)]
        extra = {**size_arguments(name), "out_indices": tuple(quarters[-count:])}
        if drop_path:
            extra["drop_path_rate"] = drop_path
        self.body = create_features(name, bands, extra)
        self.name = name
        self.patch = self.body.feature_info.reduction()[0]
        self.channels = list(self.body.feature_info.channels())
        doublings = [2, 1, 0, 0] if pyramid and self.patch % 4 == 0 else [0, 0, 0, 0]
        self.strides = [self.patch // 2**d for d in doublings[-count:]]
        self.levels = nn.ModuleList(
            _enlarge(width, d) for width, d in zip(self.channels, doublings[-count:], strict=True)
        )
        init_weights(self.levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, D, h_i, w_i), finest first."""
        maps = self.body(pad_to_multiple(x, self.patch))  # each (B, D, H / patch, W / patch)
        levels = [level(feature) for level, feature in zip(self.levels, maps, strict=True)]
        return crop_maps(levels, self.strides, x.shape[-2:])


@functools.cache
def _depth(name: str) -> int:
    """Return a transformer's number of blocks; timm tells it of a built network only.

    Raises:
        UserError: the network is no chain of blocks.
    """
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    if not hasattr(network, "blocks"):
        raise UserError(
            f"backbone {name} is no plain transformer and gives no pyramid of maps; choose another"
        )
    return len(network.blocks)
