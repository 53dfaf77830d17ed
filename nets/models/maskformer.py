"""MaskFormer: queries of a transformer find a class and a mask each instead of a class per pixel.

Paper: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
NeurIPS 2021, https://arxiv.org/abs/2107.06278; the transformer: Carion et al., "End-to-End Object Detection
with Transformers" (DETR), ECCV 2020, https://arxiv.org/abs/2005.12872

Deviations: semantic segmentation only; images need not be padded to multiples of 32. The masks are enlarged
before they become probabilities, as MMSegmentation does and the paper's later code (see `sum_of_masks`). The
authors' panoptic networks with a ResNet refine the deepest map by six attention layers (`pixel_layers=6`).
"""

from nets.backbones.configured import create_pyramid
from nets.decoders.detr import PyramidPixelDecoder, QueryDecoder
from nets.errors import check_divisible
from nets.registry import register_model
from nets.segmentation_model import MaskClassificationModel

DROP_PATH = {"swin_": 0.3}


@register_model
def maskformer(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    queries: int = 100,
    channels: int = 256,
    mask_channels: int = 256,
    pixel_layers: int = 0,
    pixel_heads: int = 8,
    pixel_feedforward: int = 2048,
    norm_groups: int = 32,
    decoder_channels: int | None = None,
    decoder_layers: int = 6,
    heads: int = 8,
    feedforward: int = 2048,
    project: bool = False,
    dropout: float = 0.1,
    drop_path: float | None = None,
    pixel_positions: dict | None = None,
    positions: dict | None = None,
    backbone_options: dict | None = None,
) -> MaskClassificationModel:
    """MaskFormer on the four deepest maps of any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: resnet50/101, swin_t/s/b/l, any catalogue backbone.
        queries: number of queries.
        channels: width of the pixel decoder.
        mask_channels: width of the map that the masks are made of.
        pixel_layers: attention layers on the deepest map; the authors' semantic networks have none.
        pixel_heads: heads of their attention.
        pixel_feedforward: hidden width of their feed-forward.
        norm_groups: groups of the pixel decoder's group norms.
        decoder_channels: width of the queries; None is `channels`.
        decoder_layers: layers of the queries' decoder.
        heads: heads of their attention.
        feedforward: hidden width of their feed-forward.
        project: give the queries' map a 1x1 convolution even where the widths are equal.
        dropout: rate of dropout in all attention layers.
        drop_path: rate of stochastic depth; None is 0.3 on Swin, 0 elsewhere.
        pixel_positions: arguments of `sine_positions` in the pixel decoder.
        positions: arguments of `sine_positions` for the queries' map.
        backbone_options: arguments of the backbone's class instead of `drop_path` and its defaults.

    Raises:
        UserError: widths that cannot be divided, or a backbone without four maps of different sizes.
    """
    width = channels if decoder_channels is None else decoder_channels
    pixel_divisors = {"norm_groups": norm_groups}
    if pixel_layers:
        pixel_divisors |= {"4": 4, "pixel_heads": pixel_heads}
    check_divisible("maskformer", "channels", channels, pixel_divisors)
    check_divisible("maskformer", "decoder_channels", width, {"4": 4, "heads": heads})
    encoder = create_pyramid(
        backbone,
        bands=bands,
        user="maskformer",
        drop_path=drop_path,
        usual_drop_path=DROP_PATH,
        options=backbone_options,
    )
    pixel_decoder = PyramidPixelDecoder(
        encoder.channels,
        channels,
        mask_channels,
        layers=pixel_layers,
        heads=pixel_heads,
        feedforward=pixel_feedforward,
        dropout=dropout,
        norm_groups=norm_groups,
        positions=pixel_positions,
    )
    query_decoder = QueryDecoder(
        pixel_decoder.out_channels,
        width,
        mask_channels,
        num_classes,
        queries=queries,
        layers=decoder_layers,
        heads=heads,
        feedforward=feedforward,
        dropout=dropout,
        project=project,
        positions=positions,
    )
    return MaskClassificationModel(
        encoder, pixel_decoder, query_decoder, bands=bands, num_classes=num_classes
    )


RECIPE = {
    "plain": {
        "optimizer": "adamw",
        "lr": 2e-4,
        "weight_decay": 0.05,
        "warmup_fraction": 0.05,
        "no_decay": ("norm", "query_positions"),
        "clip_grad": 0.1,
        "loss": "mask_focal",
    },
    # MMSegmentation's configs/maskformer, the authors' own: ADE20K, total batch 16, 160000 iterations.
    "paper": {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "backbone_lr_factor": 0.1,
        "clip_grad": 0.01,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 0.0,
        "batch_size": 16,
        "loss": "mask_focal",
    },
    "paper_where": [
        (
            {"backbone": "swin_"},
            {
                "lr": 6e-5,
                "weight_decay": 0.01,
                "backbone_lr_factor": 1.0,
                "no_decay": ("norm", "query_positions", "relative_position_bias_table"),
                "poly_power": 1.0,
                "warmup_iters": 1500,
                "warmup_factor": 1e-6,
            },
        ),
    ],
}
