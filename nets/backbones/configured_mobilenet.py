"""MobileNetV3 with strides and dilations stated one by one, as `configured` does it for other backbones."""

import timm
from torch import Tensor, nn

from nets.layers.conv import set_norm_eps


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
