"""Mask2Former: queries that look only inside their own masks find a class and a mask each.

Paper: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
https://arxiv.org/abs/2112.01527; the pixel decoder's attention: Zhu et al., "Deformable DETR: Deformable
Transformers for End-to-End Object Detection", ICLR 2021, https://arxiv.org/abs/2010.04159

Deviations: semantic segmentation only; the attention is PyTorch's own operators instead of a compiled one;
images need not be padded to multiples of 32 (the authors pad them to that on the right and below). The
batch norms of a ResNet are frozen by the paper's recipe only. The authors' Swin-B and Swin-L have windows of
12 pixels (`swin_b_384`, `swin_l_384`). On ConvNeXt, which the paper does not have, each map has a layer norm,
as on Swin.
"""

from nets.backbones.configured import create_pyramid
from nets.decoders.deformable_pixel_decoder import DeformablePixelDecoder
from nets.decoders.masked_attention import MaskedAttentionDecoder
from nets.errors import UserError, check_divisible
from nets.registry import register_model
from nets.segmentation_model import MaskClassificationModel

DROP_PATH = {"swin_": 0.3}


@register_model
def mask2former(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    queries: int = 100,
    channels: int = 256,
    mask_channels: int = 256,
    levels: int = 3,
    pixel_layers: int = 6,
    pixel_heads: int = 8,
    pixel_feedforward: int = 1024,
    points: int = 4,
    norm_groups: int = 32,
    decoder_channels: int | None = None,
    decoder_layers: int = 9,
    heads: int = 8,
    feedforward: int = 2048,
    pre_norm: bool = False,
    project: bool = False,
    dropout: float = 0.0,
    drop_path: float | None = None,
    pixel_positions: dict | None = None,
    positions: dict | None = None,
    backbone_options: dict | None = None,
) -> MaskClassificationModel:
    """Mask2Former on the four deepest maps of any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: resnet50/101, swin_t/s/b/l, any catalogue backbone.
        queries: number of queries.
        channels: width of the pixel decoder.
        mask_channels: width of the map that the masks are made of.
        levels: how many of the four maps attend to each other and are looked at by the queries.
        pixel_layers: attention layers of the pixel decoder.
        pixel_heads: heads of their attention.
        pixel_feedforward: hidden width of their feed-forward.
        points: places that a head looks at on each map.
        norm_groups: groups of the pixel decoder's group norms.
        decoder_channels: width of the queries; None is `channels`.
        decoder_layers: layers of the queries' decoder.
        heads: heads of their attention.
        feedforward: hidden width of their feed-forward.
        pre_norm: normalise before each step of a layer of the queries instead of behind it.
        project: give the queries' maps a 1x1 convolution each even where the widths are equal.
        dropout: rate of dropout in all attention layers.
        drop_path: rate of stochastic depth; None is 0.3 on Swin, 0 elsewhere.
        pixel_positions: arguments of `sine_positions` in the pixel decoder.
        positions: arguments of `sine_positions` for the queries' maps.
        backbone_options: arguments of the backbone's class instead of `drop_path` and its defaults.

    Raises:
        UserError: widths that cannot be divided, or a backbone without four maps of different sizes.
    """
    width = channels if decoder_channels is None else decoder_channels
    _check_widths(channels, width, levels, pixel_heads, heads, norm_groups)
    encoder = create_pyramid(
        backbone,
        bands=bands,
        user="mask2former",
        drop_path=drop_path,
        usual_drop_path=DROP_PATH,
        options=backbone_options,
    )
    pixel_decoder = DeformablePixelDecoder(
        encoder.channels,
        channels,
        mask_channels,
        levels=levels,
        layers=pixel_layers,
        heads=pixel_heads,
        points=points,
        feedforward=pixel_feedforward,
        dropout=dropout,
        norm_groups=norm_groups,
        positions=pixel_positions,
    )
    query_decoder = MaskedAttentionDecoder(
        channels,
        width,
        mask_channels,
        num_classes,
        queries=queries,
        levels=levels,
        layers=decoder_layers,
        heads=heads,
        feedforward=feedforward,
        dropout=dropout,
        pre_norm=pre_norm,
        project=project,
        positions=positions,
    )
    return MaskClassificationModel(
        encoder, pixel_decoder, query_decoder, bands=bands, num_classes=num_classes
    )


def _check_widths(
    channels: int, decoder_channels: int, levels: int, pixel_heads: int, heads: int, norm_groups: int
) -> None:
    if not 1 <= levels <= 4:
        raise UserError(f"mask2former: levels={levels} is given; 1 to 4 is allowed")
    check_divisible(
        "mask2former", "channels", channels, {"4": 4, "pixel_heads": pixel_heads, "norm_groups": norm_groups}
    )
    check_divisible("mask2former", "decoder_channels", decoder_channels, {"4": 4, "heads": heads})


RECIPE = {
    "plain": {
        "optimizer": "adamw",
        "lr": 2e-4,
        "weight_decay": 0.05,
        "warmup_fraction": 0.05,
        "no_decay": ("norm", "query_features", "query_positions", "level_embedding"),
        "clip_grad": 0.1,
        "loss": "mask",
    },
    # MMSegmentation's configs/mask2former, the authors' own: ADE20K, total batch 16, 160000 iterations.
    "paper": {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.05,
        "backbone_lr_factor": 0.1,
        "no_decay": (
            "norm",
            "query_features",
            "query_positions",
            "level_embedding",
            "relative_position_bias_table",
        ),
        "clip_grad": 0.01,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 0.0,
        "batch_size": 16,
        "loss": "mask",
    },
    "paper_where": [({"backbone": "resnet"}, {"frozen_norm": True})],
}
