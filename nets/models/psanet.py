"""PSANet: each pixel predicts how much every position around it says about it, and it about them.

Paper: Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018,
https://hszhao.github.io/papers/eccv18_psanet.pdf

Deviations: the map is halved as MMSegmentation does it (`shrink`): with aligned corners where both sides are
odd, as the authors' crops have them, else without. MMSegmentation pads the last projection by a pixel
(`project_padding`). The attention is gathered from what each pixel predicts without a compiled operator.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.configured import create_dilated_backbone
from nets.decoders.fcn import count_stages, create_aux_heads, joined_channels, select_features
from nets.errors import check_sides
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.margins import at_least, is_tracing, share
from nets.layers.resize import resize
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


def unfold_attention(relative: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Map weights by offset (B, M M', h, w) to weights by position (B, h w, h, w); 0 beyond the mask.

    A pixel's channel (i, j) concerns the position (i, j) of a mask that is centred on the pixel. Of the
    result, [:, p, y, x] is what the pixel (y, x) says of position p.
    """
    offsets = []
    for side, length in zip(mask_size, relative.shape[-2:], strict=True):
        place = torch.arange(length, device=relative.device)
        offsets.append(place[:, None] - place + (side - 1) // 2)  # of each position from each pixel
    (rows, columns), (height, width) = offsets, mask_size
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None]
    channel = rows.clamp(0, height - 1)[:, None, :, None] * width + columns.clamp(0, width - 1)[:, None]
    # (h, w, h, w) -> (1, h w, h, w)
    channel, inside = channel.flatten(0, 1).unsqueeze(0), inside.flatten(0, 1)
    weights = relative.gather(1, channel.expand(relative.shape[0], -1, -1, -1))
    return torch.where(inside, weights, torch.zeros((), dtype=weights.dtype, device=weights.device))


class PointwiseAttention(nn.Module):
    """One branch: reduce, predict attention, gather (paper, section 3.2).

    Args:
        in_channels: channels of the map.
        channels: width.
        mask_size: rows and columns of the mask that a pixel predicts.
        distribute: a pixel is told by others how much they concern it, instead of telling itself.
        shrink: the attention works on a map smaller by this factor.
        softmax: the weights of a pixel sum to 1.
        normalization: the result is divided by this.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        mask_size: Sequence[int],
        *,
        distribute: bool,
        shrink: int,
        softmax: bool,
        normalization: float,
    ):
        super().__init__()
        self.mask_size, self.distribute, self.shrink = tuple(mask_size), distribute, shrink
        self.softmax, self.normalization = softmax, normalization
        self.reduce = ConvNormAct(in_channels, channels, 1)
        self.predict = nn.Sequential(
            ConvNormAct(channels, channels, 1),
            nn.Conv2d(channels, self.mask_size[0] * self.mask_size[1], 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the shrunk (B, D, h', w')."""
        x = self.reduce(x)
        if self.shrink > 1:
            size, aligned = shrunk_size(x.shape[-2:], self.shrink)
            x = resize_aligned(x, size, aligned)
        weights = unfold_attention(self.predict(x), self.mask_size).flatten(2)  # (B, N, N), of p by pixel
        if self.distribute:
            weights = weights.transpose(1, 2)
        if self.softmax:
            weights = weights.softmax(dim=1)
        return (x.flatten(2) @ weights).reshape(x.shape) / self.normalization


def shrunk_size(size: tuple[int, int], shrink: int) -> tuple[tuple[int, int], int]:
    """Return the smaller height and width, and 1 where corners are aligned: where both leave a remainder."""
    aligned = math.prod(share(side, shrink) - side // shrink for side in size)
    return tuple(at_least(side // shrink + aligned, 1) for side in size), aligned


def resize_aligned(x: Tensor, size: tuple[int, int], aligned: int) -> Tensor:
    """Map (B, C, h, w) to (B, C, *size), bilinear; `aligned` is 1 where corners are aligned, else 0."""
    if not is_tracing():
        return resize(x, size, align_corners=bool(aligned))
    # Which of both it is depends on the image's size: a trace needs one formula for both.
    rows, columns = (
        _bilinear_weights(x, old, new, aligned) for old, new in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.transpose(0, 1)


def _bilinear_weights(x: Tensor, old: int, new: int, aligned: int) -> Tensor:
    """Return the weights (new, old) of a line's pixels in each pixel of the resized line."""
    number = torch.arange(new, dtype=x.dtype, device=x.device)
    by_corners = number * (old - 1) / at_least(new - 1, 1)
    by_centres = ((number + 0.5) * old / new - 0.5).clamp(min=0)
    places = (aligned * by_corners + (1 - aligned) * by_centres).clamp(max=old - 1)
    return (1 - (places[:, None] - torch.arange(old, dtype=x.dtype, device=x.device)).abs()).clamp(min=0)


class PSADecoder(nn.Module):
    """One or both branches, enlarged and joined with their input (paper, figure 2).

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        branches: whether pixels collect, distribute, or both.
        shrink: as for `PointwiseAttention`.
        project_padding: pixels of zeros around the joined branches, which the projection sees.
        index: maps that are used; several are resized to the first of them and concatenated.
        align_corners: how maps are resized, but for what `shrink` has halved.
        norm_eps: epsilon of the batch norms.
        attention: further arguments of `PointwiseAttention`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        branches: Literal["both", "collect", "distribute"],
        shrink: int,
        project_padding: int,
        index: Sequence[int],
        align_corners: bool,
        norm_eps: float,
        **attention: object,
    ):
        super().__init__()
        self.index, self.align_corners, self.shrink = tuple(index), align_corners, shrink
        width = joined_channels(in_channels, index)
        self.branches = nn.ModuleList(
            PointwiseAttention(width, channels, distribute=distribute, shrink=shrink, **attention)
            for distribute in {"both": (False, True), "collect": (False,), "distribute": (True,)}[branches]
        )
        self.project = ConvNormAct(len(self.branches) * channels, width, 1)
        self.project.conv.padding = (project_padding, project_padding)
        self.join = ConvNormAct(2 * width, channels)
        self.out_channels = channels
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        x = select_features(features, self.index, align_corners=self.align_corners)
        size = x.shape[-2:]
        context = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        aligned = shrunk_size(size, self.shrink)[1] if self.shrink > 1 else int(self.align_corners)
        return self.join(torch.cat([x, resize_aligned(context, size, aligned)], dim=1))


@register_model
def psanet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    mask_size: tuple[int, ...] = (59, 59),
    branches: Literal["both", "collect", "distribute"] = "both",
    shrink: int = 2,
    softmax: bool = True,
    normalization: float = 1.0,
    project_padding: int = 0,
    in_index: tuple[int, ...] = (-1,),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """PSANet on any backbone; output stride 8 where the backbone can be dilated, else its own."""
    check_sides("psanet", "mask_size", mask_size)
    encoder = create_dilated_backbone(
        backbone,
        bands=bands,
        stages=count_stages(in_index, aux=aux, aux_heads=aux_heads),
        output_stride=output_stride,
        options=backbone_options,
    )
    decoder = PSADecoder(
        encoder.channels,
        channels,
        branches=branches,
        shrink=shrink,
        project_padding=project_padding,
        index=in_index,
        align_corners=align_corners,
        norm_eps=norm_eps,
        mask_size=mask_size,
        softmax=softmax,
        normalization=normalization,
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
    # MMSegmentation configs/psanet.
    "paper": SGD_POLY | WITH_AUX,
}
