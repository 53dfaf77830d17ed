"""ViT-Adapter with UPerNet: a plain pretrained transformer and a branch of convolutions that ask each other.

Paper: Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023,
https://arxiv.org/abs/2205.08534; the decoder: Xiao et al., ECCV 2018, https://arxiv.org/abs/1807.10221

Deviations: none from the authors' code (https://github.com/czczup/ViT-Adapter), except that images whose
sides are no multiple of 32, which theirs refuses, are padded with the bands' means and the maps cropped. The
deformable attention is written with PyTorch's own operators. Of the paper's transformers DeiT and AugReg are
here, not BEiT.
"""

from dataclasses import dataclass
from typing import Literal

from nets.backbones.vit import VIT_SIZES
from nets.backbones.vit_adapter import LEVELS, PATCH, ViTAdapter
from nets.decoders.fcn import create_aux_heads
from nets.decoders.uper import UPerDecoder
from nets.errors import UserError
from nets.recipes import WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel


@dataclass(frozen=True)
class Size:
    """What the paper's sizes differ in.

    Attributes:
        vit: key of `VIT_SIZES`.
        heads: of the deformable attention.
        value_ratio: width of its values, relative.
        drop_path: rate of stochastic depth.
        deit, augreg: timm's name of the pretrained transformer and the side of its images in pixels; None
            where there is none.
    """

    vit: str
    heads: int
    value_ratio: float
    drop_path: float
    deit: tuple[str, int] | None
    augreg: tuple[str, int]


# The authors' configurations; DeiT: Touvron et al., https://arxiv.org/abs/2012.12877; AugReg: Steiner et al.,
# https://arxiv.org/abs/2106.10270.
SIZES = {
    "t": Size("tiny", 6, 1.0, 0.1, ("deit_tiny_patch16_224", 224), ("vit_tiny_patch16_224", 224)),
    "s": Size("small", 6, 1.0, 0.2, ("deit_small_patch16_224", 224), ("vit_small_patch16_224", 224)),
    "b": Size("base", 12, 0.5, 0.3, ("deit_base_patch16_224", 224), ("vit_base_patch16_384", 384)),
    "l": Size("large", 16, 0.5, 0.4, None, ("vit_large_patch16_384", 384)),
}


@register_model
def vit_adapter(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["t", "s", "b", "l"] = "t",
    weights: Literal["auto", "deit", "augreg"] = "auto",
    image_size: int | None = None,
    layer_scale: bool = True,
    windows: tuple[int, ...] = (),
    interactions: tuple[int, ...] | None = None,
    prior_channels: int = 64,
    heads: int | None = None,
    points: int = 4,
    value_ratio: float | None = None,
    ffn_ratio: float = 0.25,
    extra_extractors: bool = True,
    add_patches: bool = True,
    drop_path: float | None = None,
    backbone_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    channels: int = 512,
    pool_scales: tuple[int, ...] = (1, 2, 3, 6),
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
) -> SegmentationModel:
    """ViT-Adapter with UPerNet.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the transformer: Ti, S, B, L.
        weights: whose ImageNet weights `--PRETRAIN_BACKBONE imagenet` takes, and so the size of the position
            embedding: DeiT's (none for L), or AugReg's ViT; "auto" is DeiT where there is one.
        image_size: side in pixels of the images that the position embedding is made for, a multiple of 16;
            None is that of the weights, 224 or (AugReg's B and L) 384.
        layer_scale: the transformer's blocks scale their residual branches.
        windows: side in patches of each block's attention windows, 0 for attention all over the map; none
            given is 0 everywhere.
        interactions: blocks of the transformer in each interaction; None is four times a quarter.
        prior_channels: width of the convolutions beside the transformer.
        heads: of the deformable attention; None is 6, 6, 12, 16.
        points: places per head and map that it looks at.
        value_ratio: width of its values, relative; None is 1, 1, 0.5, 0.5.
        ffn_ratio: width of the extractors' feed-forward networks, relative; 0 is none.
        extra_extractors: the last interaction has two extractors more.
        add_patches: the transformer's own maps are added to the adapter's; needs four interactions.
        drop_path: rate of stochastic depth; None is 0.1, 0.2, 0.3, 0.4.
        backbone_dropout: rate of dropout in the transformer.
        attention_dropout: rate of dropout on the weights of its attention.
        channels: width of the decoder.
        pool_scales: grids of the pooling pyramid, cells per side.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are enlarged.
        norm_eps: epsilon of the decoder's batch norms.
        aux: build the usual auxiliary FCN head on the last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.

    Raises:
        UserError: weights, blocks or widths that do not fit.
    """
    size = SIZES[backbone]
    pretrained, usual_side = _weights(backbone, weights)
    runs = interactions or (VIT_SIZES[size.vit].depth // LEVELS,) * LEVELS
    heads, side = heads or size.heads, image_size or usual_side
    value_ratio = size.value_ratio if value_ratio is None else value_ratio
    _check(size.vit, runs, windows, heads, value_ratio, side, add_patches)
    encoder = ViTAdapter(
        size.vit,
        bands=bands,
        interactions=runs,
        image_size=side,
        layer_scale=layer_scale,
        windows=windows,
        prior_channels=prior_channels,
        heads=heads,
        points=points,
        value_ratio=value_ratio,
        ffn_ratio=ffn_ratio,
        extra_extractors=extra_extractors,
        add_patches=add_patches,
        drop_path=size.drop_path if drop_path is None else drop_path,
        dropout=backbone_dropout,
        attention_dropout=attention_dropout,
    )
    encoder.name = pretrained
    decoder = UPerDecoder(
        encoder.channels, channels, pool_scales, align_corners=align_corners, norm_eps=norm_eps
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


def _weights(backbone: str, weights: str) -> tuple[str, int]:
    """Return timm's name of the pretrained transformer and the side of its images in pixels."""
    size = SIZES[backbone]
    if weights == "augreg" or (weights == "auto" and size.deit is None):
        return size.augreg
    if size.deit is None:
        raise UserError(f"vit_adapter: weights=deit is given; DeiT has no size {backbone}, take augreg")
    return size.deit


def _check(
    vit: str,
    interactions: tuple[int, ...],
    windows: tuple[int, ...],
    heads: int,
    value_ratio: float,
    image_size: int,
    add_patches: bool,
) -> None:
    """Check options against the transformer's size.

    Raises:
        UserError: one does not fit.
    """
    size, counts = VIT_SIZES[vit], "/".join(map(str, interactions))
    if sum(interactions) != size.depth or min(interactions) < 1:
        raise UserError(
            f"vit_adapter: interactions={counts} is given; numbers from 1 whose sum is {size.depth}, the "
            "blocks of this size, are needed"
        )
    if add_patches and len(interactions) != LEVELS:
        raise UserError(
            f"vit_adapter: interactions={counts} is given; without add_patches=false it must be four"
        )
    if windows and len(windows) != size.depth:
        raise UserError(
            f"vit_adapter: {len(windows)} windows are given; one per block, {size.depth}, is needed"
        )
    if size.width % heads or int(size.width * value_ratio) % heads:
        raise UserError(
            f"vit_adapter: heads={heads}, value_ratio={value_ratio:g} are given; the heads must divide the "
            f"width {size.width} and that of the values"
        )
    if image_size < PATCH or image_size % PATCH:
        raise UserError(f"vit_adapter: image_size={image_size} is given; a multiple of {PATCH} is needed")


ADAMW = {
    "optimizer": "adamw",
    "lr": 6e-5,
    "weight_decay": 0.01,
    "scheduler": "poly",
    "poly_power": 1.0,
    "min_lr": 0.0,
    "warmup_iters": 1500,
    "warmup_factor": 1e-6,
    "no_decay": ("vector",),
    "layer_decay": 0.95,
    "batch_size": 16,
    "loss": "ce",
}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 3e-4, "warmup_fraction": 0.05},
    # The authors' configurations: ADE20K, 160k iterations, crops of 512, total batch 16.
    "paper": ADAMW | WITH_AUX,
    "paper_where": [
        ({"backbone": "t"}, {"lr": 1.2e-4}),
        ({"backbone": "l"}, {"lr": 2e-5, "weight_decay": 0.05}),
        (
            {"backbone": "b", "weights": "augreg"},
            {
                "lr": 2e-5,
                "layer_decay": 1.0,
                "head_lr_factor": 10.0,
                "no_decay": ("norm", ".bias", "level_embedding", "pos_embed"),
            },
        ),
    ],
}
