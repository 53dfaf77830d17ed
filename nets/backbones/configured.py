"""Backbones whose stem, strides and dilations are stated one by one, as OpenMMLab states them.

The networks are timm's; what timm has no argument for is set on the built convolutions. `output_stride` alone
needs none of this.
"""

from collections.abc import Callable
from typing import Literal

import timm
from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate, create_backbone, find_backbone
from nets.backbones.configured_densenet import ConfiguredDenseNet
from nets.backbones.configured_efficientnet import ConfiguredEfficientNet
from nets.backbones.configured_mobilenet import ConfiguredMobileNetV2, ConfiguredMobileNetV3
from nets.backbones.normed import NormedBackbone
from nets.backbones.plain_transformer import PlainTransformer
from nets.backbones.twins import Twins
from nets.errors import UserError
from nets.layers.conv import set_norm_eps


class ConfiguredResNet(nn.Module):
    """A ResNet, ResNeXt or ResNeSt of timm with stem, strides and dilations of one's own.

    Args:
        name: timm's name.
        bands: bands of an image.
        stem: "standard" is one 7x7 convolution, "deep" three 3x3 (variants C and D of He et al., "Bag of
            Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019,
            https://arxiv.org/abs/1812.01187).
        stem_channels: width of the stem.
        avg_down: shortcuts average before their 1x1 convolution (variant D).
        strides, dilations: per stage.
        contract_dilation: the first block of a dilated stage has half the stage's dilation.
        multi_grid: dilation of each block of the last stage (Chen et al., https://arxiv.org/abs/1706.05587).
        stride_in: where a bottleneck's stride lies: its 3x3 convolution, or its first 1x1 ("conv1", the
            original).
        dilate_second: dilate both 3x3 convolutions of a basic block instead of the first alone.
        out_stages: stages whose maps are given, from 0.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stem: Literal["standard", "deep"] = "standard",
        stem_channels: int = 64,
        avg_down: bool = False,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        contract_dilation: bool = True,
        multi_grid: tuple[int, ...] | None = None,
        stride_in: Literal["conv1", "conv2"] = "conv2",
        dilate_second: bool = False,
        out_stages: tuple[int, ...] = (0, 1, 2, 3),
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        stem_options = {"stem_type": "deep", "stem_width": stem_channels // 2} if stem == "deep" else {}
        self.body = timm.create_model(
            name,
            pretrained=False,
            features_only=True,
            in_chans=bands,
            out_indices=tuple(range(1, len(strides) + 1)),
            avg_down=avg_down,
            **stem_options,
        )
        self.name = name
        self.out_stages = tuple(out_stages)
        stage_channels, stage_strides = self.body.feature_info.channels(), []
        for i, (stride, dilation) in enumerate(zip(strides, dilations, strict=True)):
            stage_strides.append(stride * (stage_strides[-1] if stage_strides else 4))
            blocks = self.body[f"layer{i + 1}"]
            first = dilation // 2 if contract_dilation and dilation > 1 else dilation
            rates = [first] + [dilation] * (len(blocks) - 1)
            if multi_grid and i == len(strides) - 1:
                if len(multi_grid) < len(blocks):
                    raise UserError(f"multi_grid={multi_grid} is given; {len(blocks)} numbers are needed")
                rates = list(multi_grid[: len(blocks)])
            for j, block in enumerate(blocks):
                _set_block(block, stride if j == 0 else 1, rates[j], stride_in, dilate_second)
        set_norm_eps(self, norm_eps)
        self.channels = [stage_channels[i] for i in self.out_stages]
        self.strides = [stage_strides[i] for i in self.out_stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        features = self.body(x)
        return [features[i] for i in self.out_stages]


def _set_block(block: nn.Module, stride: int, dilation: int, stride_in: str, dilate_second: bool) -> None:
    """Set stride and dilation of a residual block of timm's ResNet or ResNeSt."""
    bottleneck = hasattr(block, "conv3")
    second = getattr(block.conv2, "conv", block.conv2)  # ResNeSt wraps it in split attention
    spatial = second if bottleneck else block.conv1
    block.conv1.stride = second.stride = (1, 1)
    if hasattr(block, "avd_last"):  # ResNeSt averages where a ResNet strides
        block.avd_last = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
    else:
        (block.conv1 if bottleneck and stride_in == "conv1" else spatial).stride = (stride, stride)
    for conv in (spatial, *([second] if dilate_second else [])):
        conv.dilation = conv.padding = (dilation, dilation)
    if block.downsample is not None:
        pool, conv = block.downsample[0], block.downsample[-2]
        if pool is conv:
            conv.stride = (stride, stride)
        else:
            average = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            block.downsample[0] = average if stride > 1 else nn.Identity()
    elif stride > 1:
        raise UserError(f"stride {stride} is given for a stage without a shortcut convolution; it must be 1")


# Beginnings of the names of backbones that have a norm on each map where four maps are used.
NORMED = ("swin_", "convnext", "poolformer_")
# Beginning of a backbone's name -> the class that takes options.
CONFIGURABLE: dict[str, Callable[..., nn.Module]] = {
    "resnet": ConfiguredResNet,
    "resnext": ConfiguredResNet,
    "wide_resnet": ConfiguredResNet,
    "resnest": ConfiguredResNet,
    "mobilenetv2": ConfiguredMobileNetV2,
    "mobilenetv3": ConfiguredMobileNetV3,
    "tf_mobilenetv3": ConfiguredMobileNetV3,
    "densenet": ConfiguredDenseNet,
    "efficientnet_": ConfiguredEfficientNet,
    "tf_efficientnet": ConfiguredEfficientNet,
    "swin_": NormedBackbone,
    "convnext": NormedBackbone,
    "poolformer_": NormedBackbone,
    "twins_": Twins,
    "vit_": PlainTransformer,
    "deit_": PlainTransformer,
    "mae_": PlainTransformer,
    "beit_": PlainTransformer,
}


def create_configured_backbone(
    name: str,
    *,
    bands: int,
    stages: int | None = None,
    output_stride: int | None = None,
    drop_path: float = 0.0,
    options: dict | None = None,
) -> nn.Module:
    """Build a backbone as `create_backbone` does, or from `options` alone where they are given.

    {"maps": (0, 1, 2)} are the numbers of the maps that any timm network gives.

    Raises:
        UserError: options for a backbone that has none, or that it does not have.
    """
    if not options:
        return create_backbone(
            name, bands=bands, stages=stages, output_stride=output_stride, drop_path=drop_path
        )
    if options.keys() <= {"maps", "output_stride"} and "maps" in options:
        return create_backbone(name, bands=bands, drop_path=drop_path, **options)
    spelled = find_backbone(name)
    for beginning, build in CONFIGURABLE.items():
        if spelled.startswith(beginning):
            try:
                return build(spelled, bands=bands, **options)
            except TypeError as error:
                raise UserError(
                    f"backbone {spelled}: backbone_options {options} do not fit ({error})"
                ) from error
    raise UserError(f"backbone {spelled} takes no backbone_options; leave them out")


def create_pyramid(
    name: str,
    *,
    bands: int,
    user: str,
    drop_path: float | None,
    usual_drop_path: dict[str, float],
    options: dict | None,
) -> nn.Module:
    """Build the four deepest stages of a backbone; Swin, ConvNeXt, PoolFormer get a norm on each.

    Args:
        name: any backbone with four maps of different sizes.
        bands: bands of an image.
        user: the network's name, for messages.
        drop_path: rate of stochastic depth; None is the usual one.
        usual_drop_path: rate by the beginning of the backbone's name; 0 for all others.
        options: arguments of the backbone's class instead of the above.

    Raises:
        UserError: the backbone has fewer than four maps or maps of one resolution only.
    """
    spelled = find_backbone(name)
    if drop_path is None:
        usual = (rate for beginning, rate in usual_drop_path.items() if spelled.startswith(beginning))
        drop_path = next(usual, 0.0)
    if spelled.startswith(NORMED) and not options:
        options = {"stages": 4, "drop_path": drop_path}
    backbone = create_configured_backbone(
        spelled, bands=bands, stages=4, drop_path=drop_path, options=options
    )
    # MMSegmentation has networks on four maps of one size; imported, they say so in their options.
    one_size = backbone.strides[0] == backbone.strides[-1] and not options
    if len(backbone.channels) < 4 or one_size:
        raise UserError(
            f"{user}: backbone {name} has maps of strides {backbone.strides}; four sizes are needed, "
            "as resnet50 or swin_t have"
        )
    return backbone


def create_dilated_backbone(
    name: str,
    *,
    bands: int,
    stages: int | None = None,
    output_stride: int | None = None,
    options: dict | None = None,
) -> nn.Module:
    """Build a backbone as `create_configured_backbone` does, at output stride 8 where nothing else is said.

    Backbones that cannot be dilated keep their own stride.
    """
    if output_stride is None and not options and can_dilate(name):
        output_stride = 8
    return create_configured_backbone(
        name, bands=bands, stages=stages, output_stride=output_stride, options=options
    )
