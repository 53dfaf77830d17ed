"""Any timm network as a backbone (https://github.com/huggingface/pytorch-image-models, Apache-2.0)."""

import functools

import timm
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from nets.backbones.swin import pad_before_shift
from nets.errors import UserError
from nets.layers.margins import crop, pad, share

# Sizes at which `study` tries a network: square, wide, odd.
TRIAL_SIZES = ((64, 64), (96, 160), (65, 97))


class TimmBackbone(nn.Module):
    """The last `stages` feature maps of a timm network.

    Args:
        name: timm's own name.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all the network has.
        output_stride: stride of the deepest map, in pixels; below the network's own it is dilated.
        drop_path: rate of stochastic depth, 0 for networks that have none.
        divisor: images are padded on the right and below to a multiple of this many pixels.
        arguments: further arguments of timm's constructor.

    Attributes:
        channels, strides: per feature map, finest first.

    Raises:
        UserError: the network cannot give feature maps or cannot be dilated.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        output_stride: int | None = None,
        drop_path: float = 0.0,
        divisor: int = 1,
        arguments: dict | None = None,
    ):
        super().__init__()
        extra = {**size_arguments(name), **(arguments or {})}
        if output_stride is not None and output_stride != 32:
            extra["output_stride"] = output_stride
        if stages is not None:
            extra["out_indices"] = tuple(range(-stages, 0))
        if drop_path:
            extra["drop_path_rate"] = drop_path
        self.body = create_features(name, bands, extra)
        self.name = name
        self.channels = list(self.body.feature_info.channels())
        self.strides = list(self.body.feature_info.reduction())
        embed = next((m for m in self.body.modules() if isinstance(m, PatchEmbed)), None)
        self.divisor = max(divisor, embed.patch_size[0] if embed is not None else 1)
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        size = x.shape[-2:]
        if self.divisor > 1:
            x = pad_to_multiple(x, self.divisor)
        features = self.body(x)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return crop_maps(features, self.strides, size) if self.divisor > 1 else features


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Map (B, C, H, W) to the next multiple of `divisor`; the added rows and columns are the band means."""
    return pad(x, tuple(divisor * share(side, divisor) for side in x.shape[-2:]))


def crop_maps(features: list[Tensor], strides: list[int], size: tuple[int, int]) -> list[Tensor]:
    """Return the maps of a padded image without what lies beyond its own size, in pixels."""
    # Resized to the image, a map that covers more than it would squeeze it.
    return [
        crop(feature, tuple(share(side, stride) for side in size))
        for feature, stride in zip(features, strides, strict=True)
    ]


def create_features(name: str, bands: int, arguments: dict) -> nn.Module:
    """Return timm's network that gives a list of feature maps, with random weights.

    Raises:
        UserError: the network cannot give them, or does not have one of the arguments.
    """
    if name.startswith("vgg"):
        # Of its layers for classification, which timm builds and drops again, 100 million weights are spared.
        arguments = {"mlp_ratio": 0.001, **arguments}
    try:
        network = timm.create_model(name, pretrained=False, features_only=True, in_chans=bands, **arguments)
    except (NotImplementedError, AssertionError, TypeError, RuntimeError, IndexError) as error:
        if "output_stride" in arguments:
            message = (
                f"cannot be dilated to output stride {arguments['output_stride']}; leave output_stride out"
            )
        elif arguments.get("drop_path_rate"):
            message = f"has no stochastic depth or too few maps ({error}); leave drop_path out"
        else:
            message = f"cannot give these feature maps ({error}); choose another"
        raise UserError(f"backbone {name} {message}") from error
    pad_before_shift(network)
    wake_residual_branches(network)
    return network


def wake_residual_branches(network: nn.Module) -> None:
    """Start norms at one that timm starts at zero, as the last of each residual branch of a ResNet.

    At zero (Goyal et al., 2017, https://arxiv.org/abs/1706.02677) all blocks begin as identities, which suits
    long runs with large batches; in a few epochs on a small data set the branches hardly wake up.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.is_meta and not module.weight.any():
            nn.init.ones_(module.weight)


def size_arguments(name: str) -> dict:
    """Return what a family of timm needs in order to accept images of any size."""
    if name.startswith("swin"):
        # Without always_partition a small build size silently loses the shift and the window.
        return {"strict_img_size": False, "always_partition": True}
    if name.startswith(("vit_", "deit", "eva")):
        return {"dynamic_img_size": True}
    return {}


@functools.lru_cache(maxsize=64)
def study(name: str) -> tuple[tuple[int, ...], int]:
    """Return the strides of a timm network's maps and the multiple that an image's sides must be.

    The network is built and run without memory for its weights.

    Raises:
        UserError: it gives no maps, or accepts images of one size only.
    """
    reason: Exception | None = None
    with torch.device("meta"):
        backbone = TimmBackbone(name, bands=3).eval()
        for divisor in (backbone.divisor, 32):
            backbone.divisor = divisor
            try:
                for size in TRIAL_SIZES:
                    backbone(torch.empty(1, 3, *size))
            except (RuntimeError, AssertionError, ValueError) as error:
                reason = error
                continue
            return tuple(backbone.strides), divisor
    raise UserError(
        f"backbone {name} accepts images of one size only ({reason}); choose another, as resnet50 or swin_t"
    )
