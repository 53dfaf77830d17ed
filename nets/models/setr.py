"""SETR: a plain vision transformer instead of a convolutional encoder, and three ways back to the image.

Paper: Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with
Transformers", CVPR 2021, https://arxiv.org/abs/2012.15840

Deviations: none by default. MMSegmentation's networks differ by options: a class token (naive and pup), a
position embedding resized bilinearly, fourfold enlargement before naive's classifier (`up_scale=4`), two
convolutions in the auxiliary heads (`aux_convs=2`), three auxiliary heads for pup (`layers=9,14,19`). mla's
auxiliary classifiers have a bias, as MMSegmentation's. Where the tokens of an oblong image are as many as
those that the position embedding is made for, MMSegmentation adds it as it is; here it is resized.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.backbones.vit import VIT_SIZES, ViT
from nets.layers.conv import ConvNormAct, set_norm_eps
from nets.layers.init import init_classifier, init_weights
from nets.layers.norm import ChannelNorm
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import SegmentationNetwork

# Blocks (from 0) of mla's four maps or of the auxiliary heads, by the number of blocks: Z6, Z12, ... of the
# paper's section 4.1; for 12 blocks those of the authors' configurations.
LAYERS = {
    (24, "naive"): (9, 14, 19),
    (24, "pup"): (9, 14, 19, 23),
    (24, "mla"): (5, 11, 17, 23),
    (12, "naive"): (2, 5, 8),
    (12, "pup"): (4, 7, 9, 11),
    (12, "mla"): (2, 5, 8, 11),
}
# Convolutions, their kernel, enlargement after each (section 3.2: naive classifies first and enlarges then).
UP = {"naive": (1, 1, 1), "pup": (4, 3, 2)}
NORM_EPS = 1e-6


class UpHead(nn.Module):
    """Norm, then convolutions with an enlargement after each, then the classifier: naive and pup.

    Args:
        in_channels: channels of the map.
        channels: width of the convolutions.
        num_classes: number of classes.
        convs: number of convolutions.
        kernel: their kernel's side.
        scale: enlargement after each.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps are enlarged.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        convs: int,
        kernel: int,
        scale: int,
        dropout: float,
        align_corners: bool,
    ):
        super().__init__()
        self.norm = ChannelNorm(in_channels, eps=NORM_EPS)
        self.convs = nn.ModuleList(
            ConvNormAct(in_channels if i == 0 else channels, channels, kernel) for i in range(convs)
        )
        self.scale, self.align_corners = scale, align_corners
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, K, h * scale ** convs, w * scale ** convs)."""
        x = self.norm(x)
        for conv in self.convs:
            x = _enlarge(conv(x), self.scale, align_corners=self.align_corners)
        return self.classifier(self.dropout(x))


class Aggregation(nn.Module):
    """Join the maps of four depths from the last to the first by addition (paper, section 3.2, mla)."""

    def __init__(self, in_channels: list[int], channels: int):
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width, eps=NORM_EPS) for width in in_channels)
        self.project = nn.ModuleList(ConvNormAct(width, channels, 1) for width in in_channels)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in in_channels)
        self.channels = [channels] * len(in_channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the (B, C_i, h, w) to as many (B, D, h, w), the deepest first."""
        projected = [
            project(norm(x)) for x, norm, project in zip(features, self.norms, self.project, strict=True)
        ]
        joined, smoothed = torch.zeros_like(projected[-1]), []
        for x, smooth in zip(reversed(projected), self.smooth, strict=True):
            joined = joined + x
            smoothed.append(smooth(joined))
        return smoothed


class MLAHead(nn.Module):
    """Two convolutions and a fourfold enlargement per map, then the classifier on all."""

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        num_classes: int,
        *,
        scale: int,
        dropout: float,
        align_corners: bool,
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(ConvNormAct(width, channels, 3), ConvNormAct(channels, channels, 3))
            for width in in_channels
        )
        self.scale, self.align_corners = scale, align_corners
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(len(in_channels) * channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C, h, w) to (B, K, h * scale, w * scale)."""
        enlarged = [
            _enlarge(branch(x), self.scale, align_corners=self.align_corners)
            for x, branch in zip(features, self.branches, strict=True)
        ]
        return self.classifier(self.dropout(torch.cat(enlarged, dim=1)))


def _enlarge(x: Tensor, scale: int, *, align_corners: bool) -> Tensor:
    return resize(x, (scale * x.shape[-2], scale * x.shape[-1]), align_corners=align_corners)


class SETR(SegmentationNetwork):
    """ViT -> (aggregation) -> head -> resize.

    Args:
        backbone: gives maps of one stride; the last one feeds a head for a single map.
        aggregation: makes of them the maps for a head with several, or None.
        head: classifies.
        aux_heads: auxiliary heads, for the first maps in order.
        bands: bands of an image.
        num_classes: number of classes.
        align_corners: how the logits are enlarged.
    """

    def __init__(
        self,
        backbone: nn.Module,
        aggregation: nn.Module | None,
        head: nn.Module,
        aux_heads: list[nn.Module],
        *,
        bands: int,
        num_classes: int,
        align_corners: bool,
    ):
        super().__init__(bands, num_classes)
        self.backbone, self.aggregation, self.head = backbone, aggregation, head
        self.aux_heads = nn.ModuleList(aux_heads)
        self.align_corners = align_corners
        for part in (aggregation, head, self.aux_heads):
            if part is not None:
                init_weights(part)
        for each in (head, *aux_heads):
            init_classifier(getattr(each, "classifier", each))

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}; training may add the list "aux"."""
        size = images.shape[-2:]
        features = self.backbone(self.normalize(images))
        if self.aggregation is not None:
            features = self.aggregation(features)
        logits = self.head(features[-1] if self.aggregation is None else features)
        outputs = {"logits": resize(logits, size, align_corners=self.align_corners)}
        if self.training and len(self.aux_heads):
            # More maps than auxiliary heads: the last one is the decoder's alone.
            pairs = zip(self.aux_heads, features, strict=False)
            outputs["aux"] = [resize(aux(x), size, align_corners=self.align_corners) for aux, x in pairs]
        return outputs


@register_model
def setr(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["tiny", "small", "base", "large"] = "large",
    decoder: Literal["naive", "pup", "mla"] = "pup",
    channels: int | None = None,
    aggregation_channels: int = 256,
    up_convs: int | None = None,
    up_kernel: Literal[1, 3] | None = None,
    up_scale: int | None = None,
    layers: tuple[int, ...] | None = None,
    aux: bool = False,
    aux_channels: int = 256,
    aux_convs: int = 1,
    aux_kernel: Literal[1, 3] | None = None,
    aux_up_scale: int = 4,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    norm_eps: float = 1e-5,
    align_corners: bool = False,
    backbone_options: dict | None = None,
) -> SETR:
    """SETR on a ViT; the paper has base and large.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the vision transformer.
        decoder: the way back to the image.
        channels: width of the decoder's convolutions; None is 256, for mla 128 per map.
        aggregation_channels: width of mla's joined maps.
        up_convs: number of convolutions of naive and pup; None is 1 and 4.
        up_kernel: their kernel's side in pixels; None is 1 and 3.
        up_scale: enlargement after each; None is 1 (naive), 2 (pup), 4 (mla).
        layers: blocks, from 0, that feed mla or the auxiliary heads; None is the paper's choice.
        aux: build the auxiliary heads.
        aux_channels: width of the auxiliary heads of naive and pup.
        aux_convs: number of their convolutions.
        aux_kernel: their kernel's side in pixels; None is the decoder's.
        aux_up_scale: enlargement after each of them.
        dropout: rate of the channel dropout before the classifier.
        drop_path: rate of stochastic depth at the last block.
        norm_eps: epsilon of the batch norms.
        align_corners: how maps and logits are enlarged.
        backbone_options: further arguments of the backbone's class.
    """
    depth = (backbone_options or {}).get("depth") or VIT_SIZES[backbone].depth
    chosen = LAYERS.get((depth, decoder), ()) if layers is None else tuple(layers)
    last = depth - 1
    # naive and pup read the last block, their auxiliary heads the chosen ones.
    blocks = chosen if decoder == "mla" else (*(chosen if aux else ()), last)
    encoder = ViT(
        backbone,
        bands=bands,
        blocks=tuple(sorted(set(blocks))),
        **({"drop_path": drop_path} | (backbone_options or {})),
    )
    shared = {"dropout": dropout, "align_corners": align_corners}
    widths, aggregation, aux_heads = encoder.channels, None, []
    if decoder == "mla":
        aggregation = Aggregation(widths, aggregation_channels)
        head = MLAHead(aggregation.channels, channels or 128, num_classes, scale=up_scale or 4, **shared)
        if aux:
            aux_heads = [nn.Conv2d(width, num_classes, 1) for width in aggregation.channels]
    else:
        convs, kernel, scale = UP[decoder]
        own = {"convs": up_convs or convs, "kernel": up_kernel or kernel, "scale": up_scale or scale}
        head = UpHead(widths[-1], channels or 256, num_classes, **own, **shared)
        if aux:
            other = {"convs": aux_convs, "kernel": aux_kernel or own["kernel"], "scale": aux_up_scale}
            aux_heads = [UpHead(widths[-1], aux_channels, num_classes, **other, **shared) for _ in chosen]
    network = SETR(
        encoder,
        aggregation,
        head,
        aux_heads,
        bands=bands,
        num_classes=num_classes,
        align_corners=align_corners,
    )
    set_norm_eps(network, norm_eps)
    return network


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-4, "warmup_fraction": 0.05},
    # MMSegmentation configs/setr: ADE20K, total batch 16 (Cityscapes: rate 0.01).
    "paper": {
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "head_lr_factor": 10.0,
        "with_backbone": ("aggregation.",),  # mla's neck, which is no head there
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 16,
        "loss": "ce",
        "aux_weight": 0.4,
        "model_options": {"aux": True, "dropout": 0.0, "drop_path": 0.0},
    },
    # Three auxiliary heads, where the paper has four.
    "paper_where": [({"backbone": "large", "decoder": "pup"}, {"model_options": {"layers": (9, 14, 19)}})],
}
