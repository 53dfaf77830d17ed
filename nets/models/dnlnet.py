"""DNLNet: non-local attention split into what one pixel says of another and what all pixels share.

Paper: Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, https://arxiv.org/abs/2006.06668

Deviations: the block stands in the decoder between two convolutions; a pair's product is divided by
`temperature` and by the square root of its width (`scaled`), all as in MMSegmentation.
"""

from typing import Literal

from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.layers.non_local import NonLocal, multiply
from nets.layers.pixel_attention import attend, gather_pixel
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class DisentangledNonLocal(NonLocal):
    """Non-local block whose pairs compare deviations from the mean, with a second mean that all pixels share.

    Args:
        temperature: divides the products of "embedded_gaussian".
        non_local: arguments of `NonLocal`; the modes without queries and keys to centre are not among them.
    """

    def __init__(self, channels: int, *, temperature: float, **non_local: object):
        super().__init__(channels, **non_local)
        self.scale /= temperature
        self.mask = nn.Conv2d(channels, 1, 1)

    def gather(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to pairwise plus shared means (B, D, h, w)."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        query, key = (each - each.mean((2, 3), keepdim=True) for each in (query, key))
        if self.mode == "embedded_gaussian":
            pairwise = attend(query, key, value, scale=self.scale)
        else:
            pairwise = multiply(query, key, value)
        return pairwise + gather_pixel(value, self.mask(x))


@register_model
def dnlnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    reduction: int = 2,
    scaled: bool = True,
    mode: Literal["embedded_gaussian", "dot_product"] = "embedded_gaussian",
    temperature: float = 0.05,
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
    """DNLNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
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
        context=DisentangledNonLocal(
            channels, reduction=reduction, scaled=scaled, mode=mode, temperature=temperature
        ),
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
    # MMSegmentation configs/dnlnet.
    "paper": SGD_POLY | WITH_AUX,
}
