"""VGG with its fully connected layers as convolutions: the trunk of the first fully convolutional networks.

Papers: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556; Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, https://arxiv.org/abs/1411.4038, section 3.1

The weights of ImageNet fit, those of the two fully connected layers too.
"""

from collections import OrderedDict

import timm
from torch import Tensor, nn

from nets.layers.init import init_weights

POOLS = 5
CLASSIFIER_CHANNELS = 4096


class ConvolutionalVGG(nn.Module):
    """The last pooled maps of a VGG, the deepest of them behind conv6 and conv7.

    Pooling rounds odd sizes up, as in Caffe: a cell of a map covers a square of the image, the first one from
    its corner on, whatever the image's size.

    Args:
        name: timm's name of a VGG.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest.
        channels: width of conv6 and conv7.
        dropout: rate at which single values are dropped behind each of these two.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int = POOLS,
        channels: int = CLASSIFIER_CHANNELS,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.name, self.stages = name, stages
        # The layers that are replaced are built as small as timm allows.
        network = timm.create_model(
            name, pretrained=False, in_chans=bands, num_classes=0, global_pool="", mlp_ratio=0.001
        )
        self.features = network.features
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        widths = [info["num_chs"] for info in network.feature_info[:POOLS]]
        # By timm's names, so that its weights fit.
        self.pre_logits = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(widths[-1], channels, 7, padding=3),
                act1=nn.ReLU(inplace=True),
                drop1=nn.Dropout(dropout),
                fc2=nn.Conv2d(channels, channels, 1),
                act2=nn.ReLU(inplace=True),
                drop2=nn.Dropout(dropout),
            )
        )
        init_weights(self.pre_logits)
        self.channels = [*widths[:-1], channels][-stages:]
        self.strides = [2**i for i in range(1, POOLS + 1)][-stages:]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the pooled maps (B, C_i, h_i, w_i), finest first, the last behind conv7."""
        pooled = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)
        return [*pooled[:-1], self.pre_logits(x)][-self.stages :]
