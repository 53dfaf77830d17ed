"""PointRend: classify again, from fine features, the points at which a coarse answer is unsure.

Paper: Kirillov, Wu, He, Girshick, "PointRend: Image Segmentation as Rendering", CVPR 2020,
https://arxiv.org/abs/1912.08193, sections 3 and 5

Deviations: the coarse network is Semantic FPN (the paper has DeepLab v3 too), as in the authors' code and in
MMSegmentation, whose numbers of points and of subdivisions these are: 8196 points in each of two. In training
"logits" are the coarse network's; the refined ones would cost time, and no loss reads them. MMSegmentation
has batch norm (`norm=batch`) and a stem of three convolutions (`backbone_options`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.decoders.semantic_fpn import LevelSum
from nets.errors import UserError
from nets.layers.margins import at_most
from nets.layers.points import choose_points, sample
from nets.layers.precision import full_precision
from nets.recipes import SGD_POLY
from nets.registry import get_builder, register_model
from nets.segmentation_model import SegmentationModel

# Deviation of the last layer's starting weights, as in the authors' code.
START = 0.001


class PointHead(nn.Module):
    """Layers that classify each point from its fine features and the coarse logits there.

    Args:
        in_channels: of the fine features.
        num_classes: number of classes.
        channels: width of the layers.
        layers: their number, without the last one.
        coarse_each: every layer sees the coarse logits, not the first alone.
        dropout: rate of dropout before the last one.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int,
        layers: int,
        coarse_each: bool,
        dropout: float,
    ):
        super().__init__()
        self.coarse_each = coarse_each
        more = num_classes if coarse_each else 0
        widths = [in_channels + num_classes] + [channels + more] * layers
        self.layers = nn.ModuleList(nn.Conv1d(width, channels, 1) for width in widths[:-1])
        self.classifier = nn.Conv1d(widths[-1], num_classes, 1)
        self.dropout = nn.Dropout(dropout)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classifier.weight, std=START)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Map fine features (B, C, P) and coarse logits (B, K, P) to logits (B, K, P)."""
        x = torch.cat([fine, coarse], dim=1)
        for layer in self.layers:
            x = layer(x).relu()
            if self.coarse_each:
                x = torch.cat([x, coarse], dim=1)
        return self.classifier(self.dropout(x))


class PointRend(SegmentationModel):
    """Semantic FPN, and a head for the points at which it is unsure.

    Args:
        base: Semantic FPN.
        head: classifies points.
        dropout: rate of the channel dropout before the coarse classifier.
        maps: levels of the pyramid whose features a point has.
        points: points per image in training.
        subdivisions: how often the logits are enlarged and refined.
        subdivision_points: points that are refined each time.
        scale: factor of each enlargement.
    """

    def __init__(
        self,
        base: SegmentationModel,
        head: PointHead,
        *,
        dropout: float,
        maps: tuple[int, ...],
        points: int,
        subdivisions: int,
        subdivision_points: int,
        scale: int,
    ):
        super().__init__(
            base.backbone,
            base.decoder,
            bands=base.bands,
            num_classes=base.num_classes,
            dropout=dropout,
            align_corners=base.align_corners,
            aux_heads=base.aux_heads,
        )
        self.point_head = head
        self.maps, self.points, self.scale = maps, points, scale
        self.subdivisions, self.subdivision_points = subdivisions, subdivision_points

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)}, refined but in training.

        Training adds "points" (B, P, 2), fractions of width and height, and "point_logits" (B, K, P).
        """
        levels = self.decoder.pyramid(features)
        coarse = self.classifier(self.dropout(LevelSum.forward(self.decoder, levels)))
        fine = [levels[i] for i in self.maps]
        if not self.training:
            return {"logits": self.refine(coarse, fine)}
        with full_precision(coarse) as logits:  # places in half precision would be coarse themselves
            points = choose_points(
                lambda points: certainty(sample(logits, points), self.task), len(logits), self.points, logits
            )
        return {"logits": coarse, "points": points, "point_logits": self.classify(coarse, fine, points)}

    def classify(self, coarse: Tensor, fine: list[Tensor], points: Tensor) -> Tensor:
        """Map coarse logits (B, K, h, w), fine maps (B, C_i, h_i, w_i) and points (B, P, 2) to (B, K, P)."""
        with full_precision(points) as points:
            found = [
                sample(x.to(points.dtype), points, align_corners=self.align_corners) for x in (coarse, *fine)
            ]
        return self.point_head(torch.cat(found[1:], dim=1), found[0])

    def refine(self, coarse: Tensor, fine: list[Tensor]) -> Tensor:
        """Map coarse logits (B, K, h, w) and fine maps to logits `scale ** subdivisions` times as large."""
        logits = coarse
        for _ in range(self.subdivisions):
            logits = F.interpolate(
                logits, scale_factor=self.scale, mode="bilinear", align_corners=self.align_corners
            )
            height, width = logits.shape[-2:]
            count = at_most(height * width, self.subdivision_points)
            flat = logits.flatten(2)  # (B, K, N)
            index = certainty(flat, self.task).topk(count, dim=1, largest=False).indices  # (B, P)
            points = centres(index, height, width)
            if coarse.dtype == torch.float64:
                points = points.double()
            found = self.classify(coarse, fine, points).to(flat.dtype)
            index = index[:, None].expand(-1, flat.shape[1], -1)
            logits = flat.scatter(2, index, found).unflatten(2, (height, width))
        return logits


def certainty(logits: Tensor, task: str) -> Tensor:
    """Map logits (B, K, N) to how sure they are of their class (B, N): by how much the first is ahead.

    Of several labels, or of a single class, it is the distance from even chances of the least sure one.
    """
    if task == "multilabel" or logits.shape[1] == 1:
        return logits.abs().amin(dim=1)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return first - second


def centres(index: Tensor, height: int, width: int) -> Tensor:
    """Map numbers of pixels (B, P), row by row, to their centres (B, P, 2) as fractions, in float32."""
    # The places of all pixels are made first: ONNX divides no tensor by a size that it does not know.
    columns, rows = (_places(side, index.device) for side in (width, height))
    plane = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    return plane.flatten(0, 1)[index]


def _places(side: int, device: torch.device) -> Tensor:
    """Return the centres of the pixels along a side, as fractions of it."""
    # In this order of operations as MMSegmentation does it, so that bits agree.
    step = 1.0 / torch.scalar_tensor(side, dtype=torch.float64, device=device)
    return step / 2.0 + torch.arange(side, dtype=torch.float32, device=device) * step


@register_model
def pointrend(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    pyramid_channels: int = 256,
    pyramid_norm: bool = False,
    channels: int = 128,
    norm: Literal["group", "batch"] = "group",
    feature_strides: tuple[int, ...] | None = None,
    point_maps: tuple[int, ...] = (0,),
    point_channels: int = 256,
    point_layers: int = 3,
    coarse_each: bool = True,
    points: int = 2048,
    subdivisions: int = 2,
    subdivision_points: int = 8196,
    scale: int = 2,
    drop_path: float | None = None,
    dropout: float = 0.0,
    point_dropout: float = 0.0,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> PointRend:
    """PointRend on Semantic FPN with the four deepest maps of any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: resnet50/101, any catalogue backbone.
        pyramid_channels: width of the feature pyramid.
        pyramid_norm: batch norm in the feature pyramid.
        channels: width of the coarse head.
        norm: norm of the coarse head; "group" is the authors', "batch" MMSegmentation's.
        feature_strides: strides in pixels that the coarse head takes the maps to have; None is their own.
        point_maps: levels of the pyramid, from 0, whose features a point has.
        point_channels: width of the layers that classify points.
        point_layers: their number, without the last one.
        coarse_each: every one of them sees the coarse logits, not the first alone.
        points: points per image in training.
        subdivisions: how often the logits are enlarged and refined.
        subdivision_points: points that are refined each time.
        scale: factor of each enlargement.
        drop_path: rate of stochastic depth; None is Semantic FPN's.
        dropout: rate of the channel dropout before the coarse classifier.
        point_dropout: rate of dropout before the points' classifier.
        align_corners: how maps and logits are enlarged, and points found in them.
        norm_eps: epsilon of the decoder's norms.
        aux: build the usual auxiliary FCN head on the backbone's last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        backbone_options: arguments of the backbone's class instead of `drop_path` and its defaults.

    Raises:
        UserError: as for `sem_fpn`, or a number that is too small.
    """
    least = {"points": (points, 1), "subdivision_points": (subdivision_points, 1), "scale": (scale, 1)}
    for option, (value, smallest) in {**least, "subdivisions": (subdivisions, 0)}.items():
        if value < smallest:
            raise UserError(f"pointrend: {option}={value} is given; at least {smallest} is needed")
    base = get_builder("sem_fpn")(
        bands=bands,
        num_classes=num_classes,
        backbone=backbone,
        pyramid_channels=pyramid_channels,
        pyramid_norm=pyramid_norm,
        channels=channels,
        norm=norm,
        feature_strides=feature_strides,
        drop_path=drop_path,
        align_corners=align_corners,
        norm_eps=norm_eps,
        aux=aux,
        aux_heads=aux_heads,
        backbone_options=backbone_options,
    )
    head = PointHead(
        len(point_maps) * pyramid_channels,
        num_classes,
        channels=point_channels,
        layers=point_layers,
        coarse_each=coarse_each,
        dropout=point_dropout,
    )
    return PointRend(
        base,
        head,
        dropout=dropout,
        maps=point_maps,
        points=points,
        subdivisions=subdivisions,
        subdivision_points=subdivision_points,
        scale=scale,
    )


AT_POINTS = {"extra_losses": {"point_logits,points": "points"}}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3, **AT_POINTS},
    # MMSegmentation configs/point_rend: ADE20K, batch 16; both losses weigh 1.
    "paper": SGD_POLY | AT_POINTS | {"warmup_iters": 200, "warmup_factor": 0.1},
}
