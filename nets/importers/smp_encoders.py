"""Encoders of segmentation_models.pytorch in our words.

Most of them have the names of torchvision or timm, which is how they are found: a candidate fits when every
tensor of it is there in the same shape.
"""

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nets.backbones.catalogue import create_backbone
from nets.backbones.configured import create_configured_backbone
from nets.backbones.mit import MIT_SIZES
from nets.backbones.pretrained import plain_name
from nets.backbones.stem import find_stem
from nets.backbones.table import ENTRIES
from nets.errors import UserError
from nets.importers.placing import UnplacedError
from nets.importers.smp_encoder_names import efficientnet, mit, mobilenet_v2

# Maps of an encoder whose depth is not reduced.
DEPTH = 5
# Strides and dilations per stage of a ResNet at each output stride.
DILATED = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}
RESNETS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
RESNEXTS = ("resnext50_32x4d", *(f"resnext101_32x{width}d" for width in (4, 8, 16, 32)))
VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
DENSENETS = tuple(f"densenet{depth}" for depth in (121, 169, 201, 161))
SENETS = (
    *(f"legacy_seresnet{depth}" for depth in (50, 101, 152)),
    *(f"legacy_seresnext{depth}_32x4d" for depth in (50, 101)),
    "legacy_senet154",
)
EFFICIENTNETS = tuple(f"efficientnet_{size}" for size in (*(f"b{i}" for i in range(9)), "l2"))
LITE = tuple(f"efficientnet_lite{i}" for i in range(5))
MOBILENET = "mobilenetv2_100"
# Stages of MobileNetV2 whose maps are used, and strides and dilations per stage at each output stride.
MOBILENET_STAGES = (0, 1, 2, 4, 6)
MOBILENET_DILATED = {
    8: ((1, 2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4, 4)),
    16: ((1, 2, 2, 2, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)),
}
# A tensor that only these have -> the candidates; timm's networks stand under "model.".
MARKS = {
    "layer0.conv1.weight": SENETS,
    "layer1.0.conv1.weight": (*RESNETS, *RESNEXTS),
    "features.0.weight": VGGS,
    "features.conv0.weight": DENSENETS,
    "conv_stem.weight": (*EFFICIENTNETS, *LITE),
    "patch_embed1.proj.weight": tuple(MIT_SIZES),
}
# The beginning of names in timm's feature networks -> the beginning of those of the networks.
TIMM_MARKS = {
    "layer1.0.": ("resn", "seresn"),
    "conv_stem.": ("efficientnet", "mobilenet", "tf_"),
    "features_0.": ("vgg",),
    "features_conv0.": ("densenet",),
    "stem_0.": ("convnext",),
    "stem.": ("poolformer", "xception"),
    "patch_embed.": ("swin",),
}
# In front of a classifier that is not there; the encoders keep them idle.
IDLE = re.compile(r"(conv_head|bn2|head)_")


@dataclass(frozen=True)
class Encoder:
    """An encoder by our names.

    Attributes:
        name: of our backbone.
        bands: bands of an image.
        dilates: how it is dilated: "stages" one by one, by timm ("output_stride"), or not ("").
        tensors: its weights.
        layers: of an EfficientNet, those whose maps are used.
        side: of an EfficientNet, side in pixels of the images for which its padding is fixed.
    """

    name: str
    bands: int
    dilates: str
    tensors: dict[str, Tensor]
    layers: tuple[int, ...] = ()
    side: int | None = None

    def options(self, depth: int, *, last: int = DEPTH, output_stride: int = 32) -> dict | None:
        """Return the backbone's options for the maps of depth `depth`, of which the last ones are used.

        Args:
            depth: the encoder's, which counts maps from stride 2 on.
            last: how many maps are used.
            output_stride: stride of the deepest map in pixels, 8 or 16 by dilation.

        Raises:
            UserError: it cannot be dilated or shortened.
        """
        if self.name == MOBILENET and self.dilates == "stages":
            return _mobilenet_options(depth, last, output_stride)
        if output_stride != 32 and self.dilates == "stages" and depth == DEPTH:
            strides, dilations = DILATED[output_stride]
            return {
                "strides": strides,
                "dilations": dilations,
                "contract_dilation": False,
                "dilate_second": True,
            }
        if output_stride != 32 and self.dilates != "output_stride":
            raise UserError(
                f"the encoder {self.name} at output stride {output_stride} cannot be imported; ResNets and "
                "timm's networks can"
            )
        if self.name in DENSENETS and self.dilates != "output_stride":
            return {"out_stages": tuple(range(depth))[-last:]}
        if self.layers:
            return {"out_layers": self.layers[:depth][-last:], "image_size": self.side}
        if depth == DEPTH and output_stride == 32 and (last < DEPTH or self._numbers(depth)[0] == 0):
            return None
        chosen = {"maps": self._numbers(depth)[-last:]}
        return chosen | ({"output_stride": output_stride} if output_stride != 32 else {})

    def last_maps(self, last: int) -> tuple[int, ...]:
        """Return the numbers of the deepest maps of our backbone."""
        return self._numbers(DEPTH)[-last:]

    def count_maps(self, depth: int) -> int:
        """Return how many maps an encoder of some depth really has: transformers have none of stride 2."""
        return len(self._numbers(depth))

    def _numbers(self, depth: int) -> tuple[int, ...]:
        """Return the numbers that the encoder's maps have among those of our backbone."""
        with torch.device("meta"):
            strides = create_backbone(self.name, bands=1).strides
        first = next(i for i, stride in enumerate(strides) if stride > 1)
        first -= strides[first] // 4  # a place is left free where stride 2 is missing
        return tuple(i for i in range(first, first + depth) if i >= 0)

    def weights(self, options: dict | None) -> dict[str, Tensor]:
        """Return the weights of our backbone with these options, by its names.

        Raises:
            UserError: a tensor has no place in it.
        """
        with torch.device("meta"):
            built = create_configured_backbone(self.name, bands=self.bands, options=options)
            whole = create_backbone(self.name, bands=self.bands)
        places = {plain_name(key): key for key in built.state_dict()}
        known = {*places, *(plain_name(key) for key in whole.state_dict())}
        left = [key for key in self.tensors if key not in known and not IDLE.match(key)]
        if left:
            raise UnplacedError([f"encoder.{key}" for key in left])
        return {f"backbone.{places[key]}": x for key, x in self.tensors.items() if key in places}


def read_encoder(state_dict: dict[str, Tensor], depth: int = DEPTH, name: str = "") -> Encoder:
    """Find out which encoder a network has.

    Args:
        state_dict: of the network.
        depth: of the encoder; timm's networks lack the deeper stages, the others keep them idle.
        name: what segmentation_models.pytorch calls it, where that is known; without it networks of timm
            that differ in padding alone are taken for those that do not begin with "tf_".

    Raises:
        UserError: none that can be imported.
    """
    state = {key.removeprefix("encoder."): x for key, x in state_dict.items() if key.startswith("encoder.")}
    if "_conv_stem.weight" in state:
        size, state = efficientnet(state)
        return replace(_find(state, (size.name,), "", depth), layers=size.layers, side=size.side)
    if "patch_embed1.proj.weight" in state:
        return _find(mit(state), tuple(MIT_SIZES), "", depth)
    if "features.18.0.weight" in state:
        return _find(mobilenet_v2(state), (MOBILENET,), "stages", depth)
    if any(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): x for key, x in state.items()}
        names = next((n for mark, n in TIMM_MARKS.items() if any(k.startswith(mark) for k in state)), None)
        known = dict.fromkeys(e.network for e in ENTRIES.values() if e.library == "timm" and names)
        candidates = tuple(n for n in known if n.startswith(names))
        return _find(state, _timm_name(name) or candidates, "output_stride", depth)
    candidates = next((names for mark, names in MARKS.items() if mark in state), ())
    found = _find(state, candidates, "stages" if "conv1.weight" in state else "", depth)
    if "conv_stem.weight" not in state:
        return found
    with torch.device("meta"):
        blocks = [len(stage) for stage in create_backbone(found.name, bands=1).body.blocks]
    return replace(found, layers=(0, *(sum(blocks[:end]) for end in (2, 3, 5, 7))))


def _mobilenet_options(depth: int, last: int, output_stride: int) -> dict:
    options = {"out_stages": MOBILENET_STAGES[:depth][-last:], "head": depth == DEPTH}
    if output_stride != 32:
        strides, dilations = MOBILENET_DILATED[output_stride]
        options |= {"strides": strides, "dilations": dilations, "dilate_all": True}
    return options


def _timm_name(name: str) -> tuple[str, ...]:
    """Return timm's name of an encoder "tu-..." or, as older versions call some, "timm-..."."""
    spelled = re.sub(r"^timm-mobilenetv3", "tu-tf_mobilenetv3", name)
    spelled = re.sub(r"^timm-(?=regnet|res2|resnest|gernet)", "tu-", spelled).split(".")[0]
    return (spelled.removeprefix("tu-"),) if spelled.startswith("tu-") else ()


def _find(state: dict[str, Tensor], candidates: tuple[str, ...], dilates: str, depth: int) -> Encoder:
    tensors = {plain_name(key): x for key, x in state.items()}
    for name in candidates:
        encoder = Encoder(name, 0, dilates, tensors)
        # timm's networks lack the deeper stages, the others keep them.
        options = encoder.options(depth if dilates == "output_stride" else DEPTH)
        bands = _bands(tensors, name, options)
        if bands:
            return replace(encoder, bands=bands)
    raise UserError(
        "the encoder of this network of segmentation_models.pytorch is not known here (its tensors are "
        f"{', '.join(list(state)[:3])}, ...); ResNet, ResNeXt, SENet, DenseNet, VGG, MobileNetV2, "
        "EfficientNet, MiT and the catalogue's networks as tu- encoders can be imported"
    )


def _bands(tensors: dict[str, Tensor], name: str, options: dict | None) -> int:
    """Return the bands of an image if the tensors are those of a backbone, else 0."""
    with torch.device("meta"):
        backbone = create_configured_backbone(name, bands=1, options=options)
    own = {plain_name(key): x.shape for key, x in backbone.state_dict().items()}
    stem = plain_name(f"{find_stem(backbone)[0]}.weight")
    counts = "num_batches_tracked"  # very old files do not count batches
    missing = [key for key in own if key not in tensors and not key.endswith(counts)]
    left = [key for key in tensors if key not in own and not IDLE.match(key)]
    if missing or left:
        return 0
    shapes = {key: (x.shape[0], 1, *x.shape[2:]) if key == stem else x.shape for key, x in tensors.items()}
    return tensors[stem].shape[1] if all(shapes[key] == own[key] for key in own if key in shapes) else 0
