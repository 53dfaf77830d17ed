"""The backbones by the names that people type."""

import functools

import timm
import torch
from torch import nn

from nets.backbones.hrnet import HRNet
from nets.backbones.inception import UnpaddedInception
from nets.backbones.inception_v2 import InceptionV2
from nets.backbones.mit import MiT
from nets.backbones.mscan import MSCAN
from nets.backbones.plain_transformer import PlainTransformer
from nets.backbones.shufflenet_v1 import ShuffleNetV1
from nets.backbones.staged import check_stages
from nets.backbones.table import ENTRIES, PYRAMID, SHORT_NAMES, Entry, describe_backbones
from nets.backbones.timm_backbone import TimmBackbone, study
from nets.backbones.torchvision_backbone import GoogLeNet, ShuffleNetV2
from nets.backbones.twins import Twins
from nets.backbones.vit_pyramid import LEVELS, ViTPyramid
from nets.errors import UserError
from nets.registry import nearest, plain

__all__ = [
    "can_dilate",
    "create_backbone",
    "describe_backbones",
    "find_backbone",
    "find_entry",
    "is_backbone",
]

# Classes of the families that timm alone does not give; all take name, bands and stages.
CLASSES: dict[str, type[nn.Module]] = {
    "beit": PlainTransformer,
    "deit": ViTPyramid,
    "hrnet": HRNet,
    "inception_v1": GoogLeNet,
    "inception_v2": InceptionV2,
    "inception_v3": UnpaddedInception,
    "inception_v4": UnpaddedInception,
    "mae": PlainTransformer,
    "mit": MiT,
    "mscan": MSCAN,
    "shufflenet_v1": ShuffleNetV1,
    "shufflenet_v2": ShuffleNetV2,
    "twins": Twins,
    "vit": ViTPyramid,
}
# timm's names for networks that the catalogue builds by a class of its own.
UNPADDED = ("inception_resnet_v2",)


@functools.cache
def _known_names() -> dict[str, str]:
    """Return plain spelling -> canonical name; the catalogue goes before timm."""
    known = {plain(each): each for each in timm.list_models()}
    for entry in ENTRIES.values():
        known[plain(entry.network)] = known[plain(entry.name)] = entry.canonical
        if entry.library == "timm" and entry.arguments:
            known[plain(entry.network)] = entry.network
    known |= {plain(short): ENTRIES[long].canonical for short, long in SHORT_NAMES.items()}
    return known


def find_backbone(name: str) -> str:
    """Return timm's name of a backbone, or the catalogue's where timm's does not say everything.

    Raises:
        UserError: no such backbone; the message proposes the nearest.
    """
    known = _known_names()
    if plain(name) not in known:
        raise UserError(f"no backbone is named {name!r}{nearest(name, [*ENTRIES, *known.values()])}")
    return known[plain(name)]


def is_backbone(name: str) -> bool:
    """Return whether `find_backbone` knows a name."""
    return plain(name) in _known_names()


@functools.cache
def _by_canonical_name() -> dict[str, Entry]:
    return {entry.canonical: entry for entry in ENTRIES.values()}


def find_entry(name: str) -> Entry | None:
    """Return the catalogue's row of a backbone, None for the other networks of timm.

    Raises:
        UserError: no such backbone.
    """
    return _by_canonical_name().get(find_backbone(name))


@functools.cache
def can_dilate(name: str) -> bool:
    """Return whether a backbone accepts an output stride below its own.

    The catalogue states it of its rows. timm has no table of the others; building the network without memory
    for its weights tells.

    Raises:
        UserError: no such backbone.
    """
    entry = find_entry(name)
    if entry is not None:
        return entry.dilates
    try:
        with torch.device("meta"):
            create_backbone(name, bands=3, output_stride=8)
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
    pyramid: bool = True,
    maps: tuple[int, ...] | None = None,
) -> nn.Module:
    """Build the last `stages` stages of a backbone with random weights.

    Args:
        name: catalogue name, short name, or any timm network.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all the backbone has.
        output_stride: stride of the deepest map in pixels, by dilation; None, or more than its own, is its
            own.
        drop_path: rate of stochastic depth.
        pyramid: plain transformers, whose maps all have one stride, get a simple feature pyramid.
        maps: numbers of the maps, from the finest, instead of the last `stages`; deeper stages are not built.

    Returns:
        A module with `channels` and `strides` that maps (B, C, H, W) to a list of maps, finest first.

    Raises:
        UserError: unknown backbone, or one that cannot do what is asked.
    """
    spelled, entry = find_backbone(name), find_entry(name)
    build, strides, divisor = _class_of(spelled, entry)
    if drop_path and entry is not None and not entry.drop_path:
        raise UserError(f"backbone {entry.name} has no stochastic depth; leave drop_path={drop_path} out")
    if output_stride is not None and output_stride >= strides[-1]:
        output_stride = None
    if output_stride is not None and (build is not TimmBackbone or (entry is not None and not entry.dilates)):
        raise _cannot_dilate(name, strides, output_stride)
    if maps is not None and build is not TimmBackbone:
        raise UserError(f"backbone {name} is not timm's; maps={maps} cannot be chosen, leave it out")
    arguments: dict = {"bands": bands, "stages": check_stages(spelled, stages, len(strides))}
    if drop_path or build in (MiT, MSCAN):
        arguments["drop_path"] = drop_path
    if build in (ViTPyramid, PlainTransformer):
        arguments["pyramid"] = pyramid
    if build is TimmBackbone:
        extra = entry.arguments if entry is not None else {}
        arguments |= {"output_stride": output_stride, "divisor": divisor, "arguments": extra}
        if maps is not None:
            arguments |= {"stages": None, "arguments": {**extra, "out_indices": tuple(maps)}}
    backbone = build(entry.network if entry is not None else spelled, **arguments)
    backbone.name = spelled
    return backbone


def _cannot_dilate(name: str, strides: tuple[int, ...], output_stride: int) -> UserError:
    return UserError(
        f"backbone {name} has maps of strides {', '.join(map(str, strides))} and cannot be dilated to "
        f"output stride {output_stride}; leave output_stride out or take one that can, as resnet50"
    )


def _class_of(spelled: str, entry: Entry | None) -> tuple[type[nn.Module], tuple[int, ...], int]:
    """Return a backbone's class, the strides of its maps and the multiple that image sides must be."""
    if entry is not None:
        return CLASSES.get(entry.family, TimmBackbone), entry.strides, 1
    if spelled in UNPADDED:
        return UnpaddedInception, PYRAMID, 1
    strides, divisor = study(spelled)
    if len(strides) > 1 and len(set(strides)) == 1:
        return ViTPyramid, strides[:1] * LEVELS, 1  # four, whatever timm gives of it
    return TimmBackbone, strides, divisor
