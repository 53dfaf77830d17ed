"""CCNet: each pixel attends to its row and column; done twice, it sees the whole image.

Paper: Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019,
https://arxiv.org/abs/1811.11721

Deviations: none in the network; the category consistent loss of the extended paper (TPAMI) is left out, as in
MMSegmentation.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import FCNDecoder, count_stages, create_aux_heads
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


class CrissCross(nn.Module):
    """Attention along rows and columns, several times with the same weights (paper, section 3.2).

    Args:
        channels: channels of the map.
        recurrence: number of times.
    """

    def __init__(self, channels: int, *, recurrence: int):
        super().__init__()
        self.recurrence = recurrence
        width = max(channels // 8, 1)
        self.query, self.key = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        for _ in range(self.recurrence):
            x = x + self.weight * self.gather(x)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the mean of each pixel's row and column, weighted (B, C, h, w)."""
        height = x.shape[-2]
        query, key, value = self.query(x), self.key(x), self.value(x)
        column = torch.einsum("bchw,bciw->bhwi", query, key)  # (B, h, w, h)
        # The pixel itself lies in its row already.
        itself = torch.eye(height, dtype=torch.bool, device=x.device)[:, None]
        column = column.masked_fill(itself, float("-inf"))
        row = torch.einsum("bchw,bchj->bhwj", query, key)  # (B, h, w, w)
        weights = torch.cat([column, row], dim=-1).softmax(dim=-1)
        of_column, of_row = weights[..., :height], weights[..., height:]
        gathered = torch.einsum("bciw,bhwi->bchw", value, of_column)
        return gathered + torch.einsum("bchj,bhwj->bchw", value, of_row)


@register_model
def ccnet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    recurrence: int = 2,
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
    """CCNet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
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
        context=CrissCross(channels, recurrence=recurrence),
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
    # MMSegmentation configs/ccnet.
    "paper": SGD_POLY | WITH_AUX,
}
