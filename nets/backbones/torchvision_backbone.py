"""GoogLeNet (Inception v1) and ShuffleNet v2, which timm has not, from torchvision (BSD-3-Clause).

Papers: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842; Ma et
al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164

Deviations: torchvision's GoogLeNet has batch norm and 3x3 instead of 5x5 convolutions, which its weights
need; the classifiers, and ShuffleNet's last 1x1 convolution that serves them, are left out.
"""

from collections import OrderedDict

import torchvision
from torch import nn

from nets.backbones.staged import StagedBackbone
from nets.layers.init import init_weights

GOOGLENET_PARTS = (
    ("conv1",),
    ("maxpool1", "conv2", "conv3"),
    ("maxpool2", "inception3a", "inception3b"),
    ("maxpool3", "inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
    ("maxpool4", "inception5a", "inception5b"),
)
SHUFFLENET_PARTS = (("conv1",), ("maxpool",), ("stage2",), ("stage3",), ("stage4",))
SHUFFLENET_WIDTHS = {
    "shufflenet_v2_x0_5": (24, 24, 48, 96, 192),
    "shufflenet_v2_x1_0": (24, 24, 116, 232, 464),
    "shufflenet_v2_x1_5": (24, 24, 176, 352, 704),
    "shufflenet_v2_x2_0": (24, 24, 244, 488, 976),
}


def _parts(network: nn.Module, names: tuple[tuple[str, ...], ...], bands: int) -> list[nn.Sequential]:
    """Return the named modules of a network in parts, the first convolution made for `bands`."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                stem = nn.Conv2d(
                    bands, child.out_channels, child.kernel_size, child.stride, child.padding, bias=False
                )
                setattr(module, name, stem)
                init_weights(network)
                return [nn.Sequential(OrderedDict((n, getattr(network, n)) for n in part)) for part in names]
    raise TypeError(f"{type(network).__name__} has no convolution")


class GoogLeNet(StagedBackbone):
    """GoogLeNet: parallel convolutions of several sizes in each block.

    Args:
        name: the catalogue's.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all five.
    """

    def __init__(self, name: str, *, bands: int, stages: int | None = None):
        network = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
        parts = _parts(network, GOOGLENET_PARTS, bands)
        super().__init__(name, parts, channels=(64, 192, 480, 832, 1024), stages=stages)


class ShuffleNetV2(StagedBackbone):
    """ShuffleNet v2: half of the channels pass each block untouched, then the halves are shuffled.

    Args:
        name: torchvision's, "shufflenet_v2_x1_0" and so on.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all five.
    """

    def __init__(self, name: str, *, bands: int, stages: int | None = None):
        parts = _parts(getattr(torchvision.models, name)(weights=None), SHUFFLENET_PARTS, bands)
        super().__init__(name, parts, channels=SHUFFLENET_WIDTHS[name], stages=stages)
