"""EfficientNet that gives the maps of its stem and of blocks of one's choice."""

import timm
import torch.nn.functional as F
from torch import Tensor, nn


class FixedPadConv(nn.Conv2d):
    """A strided convolution whose padding is that of TensorFlow for maps of one size.

    Args:
        conv: takes its form and weight.
        side: of the maps in pixels.
    """

    def __init__(self, conv: nn.Conv2d, side: int):
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        super().__init__(
            conv.in_channels, conv.out_channels, kernel, stride=stride, groups=conv.groups, bias=False
        )
        self.weight = conv.weight
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        self.sides = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, h', w')."""
        return super().forward(F.pad(x, self.sides))


class ConfiguredEfficientNet(nn.Module):
    """EfficientNet of timm with chosen maps, of which timm gives no stem's.

    Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
    https://arxiv.org/abs/1905.11946.

    Args:
        name: timm's name; "tf_" in front pads as TensorFlow does.
        bands: bands of an image.
        out_layers: layers whose maps are given: 0 is the stem, then come the blocks of all stages; what is
            deeper is not built. None are the stem and the blocks before each halving, and the last.
        image_size: side in pixels of the images for which TensorFlow's padding is fixed; None pads each
            image by its own size.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        out_layers: tuple[int, ...] | None = None,
        image_size: int | None = None,
    ):
        super().__init__()
        self.body = timm.create_model(name, pretrained=False, features_only=True, in_chans=bands)
        self.name = name
        blocks = [block for stage in self.body.blocks for block in stage]
        channels, strides = [self.body.conv_stem.out_channels], [2]
        for block in blocks:
            channels.append((block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw).out_channels)
            strides.append(strides[-1] * block.conv_dw.stride[0])
        ends = [i for i in range(1, len(blocks)) if strides[i] > 2 and strides[i + 1] > strides[i]]
        self.out_layers = (0, *ends, len(blocks)) if out_layers is None else tuple(out_layers)
        if image_size is not None:
            self._fix_padding(image_size)
        self._drop_deeper()
        self.channels = [channels[i] for i in self.out_layers]
        self.strides = [strides[i] for i in self.out_layers]

    def _fix_padding(self, side: int) -> None:
        self.body.conv_stem = FixedPadConv(self.body.conv_stem, side)
        side = -(-side // 2)
        for stage in self.body.blocks:
            if stage[0].conv_dw.stride[0] > 1:
                stage[0].conv_dw = FixedPadConv(stage[0].conv_dw, side)
                side = -(-side // 2)

    def _drop_deeper(self) -> None:
        left = max(self.out_layers)
        for stage in self.body.blocks:
            del stage[max(left, 0) :]
            left -= len(stage)
        while len(self.body.blocks) and not len(self.body.blocks[-1]):
            del self.body.blocks[-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        features = [self.body.bn1(self.body.conv_stem(x))]
        for stage in self.body.blocks:
            for block in stage:
                features.append(block(features[-1]))
        return [features[i] for i in self.out_layers]
