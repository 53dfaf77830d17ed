"""GCNet: one description of the whole scene, gathered by attention, is added to every pixel.

Paper: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV workshops
2019, https://arxiv.org/abs/1904.11492

Deviations: the block stands in the decoder between two convolutions, as MMSegmentation has it for
segmentation, instead of in the backbone's residual blocks; the bottleneck is a quarter of the width.
"""

from typing import Literal

from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.layers.init import start_at_zero
from nets.layers.pixel_attention import gather_pixel
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class GlobalContext(nn.Module):
    """Gather one pixel that describes the map, transform it, merge it with every pixel (paper, figure 4d).

    Args:
        channels: channels of the map.
        ratio: width of the transform's bottleneck as a share of the channels.
        pooling: how the map is gathered.
        fusion: whether the result is added, multiplied as a gate, or both (first multiplied).
    """

    def __init__(
        self,
        channels: int,
        *,
        ratio: float,
        pooling: Literal["attention", "average"],
        fusion: Literal["add", "multiply", "both"],
    ):
        super().__init__()

        def transform() -> nn.Sequential:
            width = int(channels * ratio)
            return nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.LayerNorm((width, 1, 1)),
                nn.ReLU(inplace=True),
                start_at_zero(nn.Conv2d(width, channels, 1)),
            )

        self.mask = nn.Conv2d(channels, 1, 1) if pooling == "attention" else None
        self.multiply = transform() if fusion != "add" else None
        self.add = transform() if fusion != "multiply" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        pixel = self.gather(x)  # (B, C, 1, 1)
        if self.multiply is not None:
            x = x * self.multiply(pixel).sigmoid()
        return x if self.add is None else x + self.add(pixel)

    def gather(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to its weighted mean (B, C, 1, 1)."""
        if self.mask is None:
            return x.mean((2, 3), keepdim=True)
        return gather_pixel(x, self.mask(x))


@register_model
def gcnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    ratio: float = 0.25,
    pooling: Literal["attention", "average"] = "attention",
    fusion: Literal["add", "multiply", "both"] = "add",
    kernel_size: int = 3,
    dilation: int = 1,
    concat_input: bool = True,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """GCNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = FCNDecoder(
        encoder.channels,
        channels,
        index=in_index,
        kernel_size=kernel_size,
        dilation=dilation,
        concat_input=concat_input,
        context=GlobalContext(channels, ratio=ratio, pooling=pooling, fusion=fusion),
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    return SegmentationModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # MMSegmentation configs/gcnet.
    "paper": SGD_POLY | WITH_AUX,
}
