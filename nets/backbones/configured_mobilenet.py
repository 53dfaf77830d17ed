"""MobileNetV2 and V3 with strides and dilations stated one by one, as `configured` does it for others."""

import timm
from torch import Tensor, nn

from nets.layers.conv import set_norm_eps

# Width of MobileNetV2's last convolution.
MOBILENET_V2_HEAD = 1280


class ConfiguredMobileNetV2(nn.Module):
    """MobileNetV2 of timm with strides and dilations of one's own.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
    https://arxiv.org/abs/1801.04381.

    Args:
        name: timm's name, for the width.
        bands: bands of an image.
        strides, dilations: of the first block of each of the seven stages; the other blocks have 1.
        out_stages: stages whose maps are given, from 0.
        norm_eps: epsilon of the batch norms.
        dilate_all: the other blocks of a stage have its dilation too.
        head: the deepest map passes the paper's last 1x1 convolution.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1),
        dilations: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1),
        out_stages: tuple[int, ...] = (1, 2, 4, 6),
        norm_eps: float = 1e-5,
        dilate_all: bool = False,
        head: bool = False,
    ):
        super().__init__()
        self.body = timm.create_model(name, pretrained=False, features_only=True, in_chans=bands)
        self.name, self.out_stages = name, tuple(out_stages)
        channels, total = [], [2]
        for stage, stride, dilation in zip(self.body.blocks, strides, dilations, strict=True):
            first = stage[0].conv_dw
            first.stride = (stride, stride)
            for block in stage if dilate_all else stage[:1]:
                block.conv_dw.dilation = block.conv_dw.padding = (dilation, dilation)
            pointwise = stage[0].conv_pwl if hasattr(stage[0], "conv_pwl") else stage[0].conv_pw
            inputs = stage[0].conv_pw.in_channels if pointwise is not stage[0].conv_pw else first.in_channels
            stage[0].has_skip = stride == 1 and inputs == pointwise.out_channels
            channels.append(pointwise.out_channels)
            total.append(total[-1] * stride)
        del self.body.blocks[max(self.out_stages) + 1 :]
        self.channels = [channels[i] for i in self.out_stages]
        self.head = nn.Identity()
        if head:
            self.head = nn.Sequential(
                nn.Conv2d(self.channels[-1], MOBILENET_V2_HEAD, 1, bias=False),
                nn.BatchNorm2d(MOBILENET_V2_HEAD),
                nn.ReLU6(inplace=True),
            )
            self.channels[-1] = MOBILENET_V2_HEAD
        set_norm_eps(self, norm_eps)
        self.strides = [total[i + 1] for i in self.out_stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        x = self.body.bn1(self.body.conv_stem(x))
        features = []
        for stage in self.body.blocks:
            x = stage(x)
            features.append(x)
        *finer, deepest = (features[i] for i in self.out_stages)
        return [*finer, self.head(deepest)]


class ConfiguredMobileNetV3(nn.Module):
    """MobileNetV3 of timm with strides and dilations of one's own.

    Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244.

    Args:
        name: timm's name; "tf_" in front pads as TensorFlow does.
        bands: bands of an image.
        strides, dilations: of each stage but the last, a 1x1 convolution; a stride is that of a stage's first
            block, a dilation that of all its blocks; None are the paper's.
        out_layers: layers whose maps are given: 0 is the stem, then come the blocks of all stages and the
            last convolution; None are the last of each stage.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        strides: tuple[int, ...] | None = None,
        dilations: tuple[int, ...] | None = None,
        out_layers: tuple[int, ...] | None = None,
        norm_eps: float = 1e-3,
    ):
        super().__init__()
        self.body = timm.create_model(name, pretrained=False, features_only=True, in_chans=bands)
        self.name = name
        stages = list(self.body.blocks)[:-1]
        strides = strides or tuple(stage[0].conv_dw.stride[0] for stage in stages)
        channels, total, ends = [self.body.conv_stem.out_channels], [2], []
        for stage, stride, dilation in zip(stages, strides, dilations or (1,) * len(stages), strict=True):
            for i, block in enumerate(stage):
                conv = block.conv_dw
                conv.stride = (stride, stride) if i == 0 else (1, 1)
                conv.dilation = (dilation, dilation)
                if conv.padding != (0, 0):  # else it is found anew for each image, as TensorFlow does
                    conv.padding = tuple(dilation * (side // 2) for side in conv.kernel_size)
                channels.append(
                    (block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw).out_channels
                )
                total.append(total[-1] * conv.stride[0])
            ends.append(len(channels) - 1)
        channels.append(self.body.blocks[-1][0].conv.out_channels)
        total.append(total[-1])
        self.out_layers = (*ends[:-1], len(channels) - 1) if out_layers is None else tuple(out_layers)
        set_norm_eps(self, norm_eps)
        self.channels = [channels[i] for i in self.out_layers]
        self.strides = [total[i] for i in self.out_layers]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        x = self.body.act1(self.body.bn1(self.body.conv_stem(x)))
        features = [x]
        for stage in self.body.blocks:
            for block in stage:
                x = block(x)
                features.append(x)
        return [features[i] for i in self.out_layers]
