"""The backbones by the names that people type."""

import timm
import torch
from torch import nn

from nets.backbones.mit import MIT_SIZES, MiT
from nets.backbones.mscan import MSCAN, MSCAN_SIZES
from nets.backbones.timm_backbone import TimmBackbone
from nets.errors import UserError
from nets.registry import nearest, plain

# What the short names of the catalogue mean.
SHORT_NAMES = {
    "resnet": "resnet50",
    "vgg": "vgg16",
    "vggnet": "vgg16",
    "xception": "xception65",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_l": "swin_large_patch4_window7_224",
    "swin_b_w12": "swin_base_patch4_window12_384",
    "swin_l_w12": "swin_large_patch4_window12_384",
    "swin_b_384": "swin_base_patch4_window12_384",
    "swin_l_384": "swin_large_patch4_window12_384",
    "convnext_t": "convnext_tiny",
    "convnext_s": "convnext_small",
    "convnext_b": "convnext_base",
    "convnext_l": "convnext_large",
    "convnext_xl": "convnext_xlarge",
}


def find_backbone(name: str) -> str:
    """Return the catalogue's or timm's spelling of a backbone's name.

    Raises:
        UserError: no such backbone; the message proposes the nearest.
    """
    known = {plain(each): each for each in [*timm.list_models(), *MIT_SIZES, *MSCAN_SIZES]}
    known |= {plain(short): long for short, long in SHORT_NAMES.items()}
    if plain(name) not in known:
        raise UserError(f"no backbone is named {name!r}{nearest(name, known.values())}")
    return known[plain(name)]


def can_dilate(name: str) -> bool:
    """Return whether a backbone accepts an output stride below its own.

    timm has no table of this; building the network without memory for its weights tells.
    """
    try:
        with torch.device("meta"):
            create_backbone(name, bands=3, stages=4, output_stride=16)
    except UserError:
        return False
    return True


def create_backbone(
    name: str,
    *,
    bands: int,
    stages: int | None = None,
    output_stride: int | None = None,
    drop_path: float = 0.0,
) -> nn.Module:
    """Build the last `stages` stages of a backbone with random weights.

    Args:
        name: catalogue name, short name, or any timm network.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all the backbone has.
        output_stride: stride of the deepest map in pixels, by dilation; None is the backbone's own.
        drop_path: rate of stochastic depth.

    Returns:
        A module with `channels` and `strides` that maps (B, C, H, W) to a list of maps, finest first.

    Raises:
        UserError: unknown backbone, or one that cannot do what is asked.
    """
    spelled = find_backbone(name)
    if spelled in MIT_SIZES:
        if output_stride not in (None, 32) or (stages or 4) > 4:
            raise UserError(f"backbone {spelled} has four maps of strides 4 to 32 and cannot be dilated")
        return MiT(spelled, bands=bands, drop_path=drop_path, stages=stages or 4)
    if spelled in MSCAN_SIZES:
        if output_stride not in (None, 32) or (stages or 4) > 4:
            raise UserError(f"backbone {spelled} has four maps of strides 4 to 32 and cannot be dilated")
        return MSCAN(spelled, bands=bands, drop_path=drop_path, stages=stages or 4)
    return TimmBackbone(spelled, bands=bands, stages=stages, output_stride=output_stride, drop_path=drop_path)
