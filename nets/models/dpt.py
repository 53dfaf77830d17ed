"""DPT: maps of four depths of a plain transformer become a pyramid that convolutions fuse step by step.

Paper: Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, https://arxiv.org/abs/2103.13413

Deviations: the plain transformers (the paper's Base and Large; tiny and small too), not the hybrid on a
ResNet. In the authors' code (https://github.com/isl-org/DPT) the auxiliary head reads the finest fused map;
ours, as all here, one of the transformer's. MMSegmentation enlarges the scores of a padded image to the
image's own size (`unpad=false`), not aligned at the corners; segmentation_models.pytorch has the widths of
the large size for all, and refines the deepest map once more (`refine_deepest=true`).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.backbones.vit import VIT_SIZES, ViT
from nets.decoders.fcn import create_aux_heads
from nets.decoders.patches import PatchModel
from nets.errors import UserError
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_classifier, init_weights
from nets.layers.resize import resize
from nets.layers.token_map import token_map
from nets.registry import register_model

# Blocks whose maps are read, from 0, by the number of blocks (paper, section 3, which counts from 1).
LAYERS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23)}
# Channels of the four maps.
WIDTHS = {
    "tiny": (24, 48, 96, 192),
    "small": (48, 96, 192, 384),
    "base": (96, 192, 384, 768),
    "large": (256, 512, 1024, 1024),
}
FINEST_STRIDE = 4


class ReadoutViT(ViT):
    """A ViT whose maps have the class token brought to every patch (paper, section 3, "Read").

    Args:
        name: see `ViT`.
        readout: "project" is a layer on token and patch, "add" their sum, "ignore" the patches alone.
        options: of `ViT`.
    """

    def __init__(self, name: str, *, readout: str, **options: object):
        super().__init__(name, **options)
        self.readout = readout
        self.projects = nn.ModuleList()
        if readout == "project":
            self.projects.extend(nn.Linear(2 * width, width) for width in self.channels)
            init_weights(self.projects)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to one (B, D, H / patch, W / patch) per chosen block, rounded up."""
        pairs = self.encode(x)
        if self.readout == "ignore":
            return [patches for patches, _ in pairs]
        if self.readout == "add":
            return [patches + token[:, :, None, None] for patches, token in pairs]
        maps = []
        for project, (patches, token) in zip(self.projects, pairs, strict=True):
            tokens = patches.flatten(2).transpose(1, 2)  # (B, N, D)
            both = torch.cat([tokens, token[:, None].expand_as(tokens)], dim=2)
            maps.append(token_map(F.gelu(project(both)), patches.shape[-2:]))
        return maps


def reassemble(in_channels: int, width: int, channels: int, scale: float) -> nn.Sequential:
    """Return what projects a map, changes its size by `scale` and brings it to the fusion's width."""
    if scale > 1:
        side = int(scale)
        rescale: nn.Module = nn.ConvTranspose2d(width, width, side, stride=side)
    elif scale == 1:
        rescale = nn.Identity()
    else:
        rescale = nn.Conv2d(width, width, 3, stride=int(1 / scale), padding=1)
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1), rescale, nn.Conv2d(width, channels, 3, padding=1, bias=False)
    )


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to the input."""

    def __init__(self, channels: int, *, norm: bool, bias: bool = False):
        super().__init__()
        self.first, self.second = (
            ConvNormAct(channels, channels, 3, norm=norm, act=False, bias=bias) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class Fusion(nn.Module):
    """Add a refined map to the coarser levels' result, refine, enlarge by 2 and project.

    Args:
        channels: width.
        refine: refine the map that is added; the first fusion has only one.
        align_corners: how it is enlarged.
        units: arguments of the residual units.
    """

    def __init__(self, channels: int, *, refine: bool, align_corners: bool, **units: bool):
        super().__init__()
        self.refine = ResidualUnit(channels, **units) if refine else nn.Identity()
        self.smooth = ResidualUnit(channels, **units)
        self.project = nn.Conv2d(channels, channels, 1)
        self.align_corners = align_corners

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Map (B, D, h, w) and (B, D, h', w') to (B, D, 2 h', 2 w'), or (B, D, h, w) to (B, D, 2 h, 2 w)."""
        # Half of an odd side, doubled again, is one more.
        x = self.refine(x if coarser is None else resize(x, coarser.shape[-2:]))
        x = self.smooth(x if coarser is None else coarser + x)
        size = (2 * x.shape[-2], 2 * x.shape[-1])
        return self.project(resize(x, size, align_corners=self.align_corners))


class DPTHead(nn.Module):
    """Reassemble, fuse and classify (paper, section 3).

    Args:
        in_channels: of the transformer's maps.
        widths: channels of each before the fusion.
        scales: enlargement of each.
        channels: width of the fusion.
        num_classes: number of classes.
        refine_deepest: the first fusion refines its map too.
        norm: batch norm behind the fusion.
        residual_norm: batch norm in the residual units.
        residual_bias: their convolutions have biases.
        align_corners: how maps are enlarged.
        norm_eps: epsilon of the batch norms.
        dropout: rate of the channel dropout before the classifier.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        widths: Sequence[int],
        scales: Sequence[float],
        channels: int,
        num_classes: int,
        *,
        refine_deepest: bool,
        norm: bool,
        residual_norm: bool,
        residual_bias: bool,
        align_corners: bool,
        norm_eps: float,
        dropout: float,
    ):
        super().__init__()
        self.reassemble = nn.ModuleList(
            reassemble(each, width, channels, scale)
            for each, width, scale in zip(in_channels, widths, scales, strict=True)
        )
        last, units = len(in_channels) - 1, {"norm": residual_norm, "bias": residual_bias}
        self.fusions = nn.ModuleList(  # finest first, as the maps
            Fusion(channels, refine=i < last or refine_deepest, align_corners=align_corners, **units)
            for i in range(len(in_channels))
        )
        self.smooth = ConvNormAct(channels, channels, 3, norm=norm)
        self.dropout, self.classifier = nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1)
        set_norm_eps(self, norm_eps)
        init_weights(self)
        init_classifier(self.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the transformer's maps (B, C, h, w) to scores (B, K, h', w')."""
        maps = [level(x) for level, x in zip(self.reassemble, features, strict=True)]
        x = None
        for fusion, each in zip(reversed(self.fusions), reversed(maps), strict=True):
            x = fusion(each, x)
        return self.classifier(self.dropout(self.smooth(x)))


@register_model
def dpt(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["tiny", "small", "base", "large"] = "base",
    readout: Literal["project", "add", "ignore"] = "project",
    layers: tuple[int, ...] | None = None,
    patch: int = 16,
    widths: tuple[int, ...] | None = None,
    channels: int = 256,
    refine_deepest: bool = False,
    norm: bool = True,
    residual_norm: bool | None = None,
    residual_bias: bool = False,
    drop_path: float = 0.0,
    dropout: float = 0.1,
    unpad: bool = True,
    align_corners: bool = True,
    fusion_align_corners: bool = True,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    scales: tuple[float, ...] | None = None,
    backbone_options: dict | None = None,
) -> PatchModel:
    """DPT on a plain vision transformer.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the vision transformer.
        readout: what becomes of the class token: a layer on it and each patch, a sum, or nothing.
        layers: blocks, from 0, whose maps are fused; None is the paper's choice.
        patch: side of a patch in pixels.
        widths: channels of each map before the fusion; None is the paper's choice.
        channels: width of the fusion.
        refine_deepest: a residual unit more on the deepest map.
        norm: batch norm behind the fusion.
        residual_norm: batch norm in the fusion's residual units; None is as behind it.
        residual_bias: these units' convolutions have biases.
        drop_path: rate of stochastic depth at the transformer's last block.
        dropout: rate of the channel dropout before the classifier.
        unpad: enlarge the scores to the padded image and crop them; otherwise they are enlarged to the image.
        align_corners: how scores are enlarged.
        fusion_align_corners: how maps are enlarged.
        norm_eps: epsilon of the batch norms.
        aux: build the usual auxiliary FCN head on the last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        scales: enlargement of each map; None gives them the strides 4, 8, 16 and so on.
        backbone_options: further arguments of the backbone's class.

    Raises:
        UserError: not as many widths as layers.
    """
    own = {"class_token": True, "position_interpolation": "bilinear", "patch": patch, "drop_path": drop_path}
    own |= backbone_options or {}
    blocks = tuple(layers or LAYERS[own.get("depth") or VIT_SIZES[backbone].depth])
    widths = tuple(widths or WIDTHS[backbone])
    if len(widths) != len(blocks):
        raise UserError(f"dpt: widths={widths} are given for {len(blocks)} layers; as many are needed")
    encoder = ReadoutViT(backbone, readout=readout, bands=bands, blocks=blocks, **own)
    head = DPTHead(
        encoder.channels,
        widths,
        scales or [own["patch"] / (FINEST_STRIDE * 2**i) for i in range(len(blocks))],
        channels,
        num_classes,
        refine_deepest=refine_deepest,
        norm=norm,
        residual_norm=norm if residual_norm is None else residual_norm,
        residual_bias=residual_bias,
        align_corners=fusion_align_corners,
        norm_eps=norm_eps,
        dropout=dropout,
    )
    return PatchModel(
        encoder,
        head,
        bands=bands,
        num_classes=num_classes,
        in_index=None,
        patch=own["patch"] if unpad else None,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-4, "warmup_fraction": 0.05},
    # MMSegmentation configs/dpt: ADE20K, total batch 16.
    "paper": {
        "optimizer": "adamw",
        "lr": 6e-5,
        "weight_decay": 0.01,
        "no_decay": ("norm", "pos_embed", "cls_token"),
        "scheduler": "poly",
        "poly_power": 1.0,
        "min_lr": 0.0,
        "warmup_iters": 1500,
        "warmup_factor": 1e-6,
        "batch_size": 16,
        "loss": "ce",
        "model_options": {"drop_path": 0.0, "dropout": 0.1},
    },
}
