"""UPerNet: a pooling pyramid on the deepest map and a feature pyramid below it, all levels fused.

Paper: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018,
https://arxiv.org/abs/1807.10221, section 3.1; on Swin: Liu et al., ICCV 2021,
https://arxiv.org/abs/2103.14030; on ConvNeXt: Liu et al., CVPR 2022, https://arxiv.org/abs/2201.03545; on
BEiT: Bao et al., ICLR 2022, https://arxiv.org/abs/2106.08254; on MAE: He et al., CVPR 2022,
https://arxiv.org/abs/2111.06377

Deviations: only the head for one kind of label, as in every later work; the ResNet is timm's
(MMSegmentation's has a deep stem: `backbone_options`). Swin, ConvNeXt and Twins-SVT have a layer norm on each
map, as their authors' UPerNets. The paper recipes of BEiT and MAE have a decoder as wide as the transformer.
"""

from nets.backbones.configured import create_pyramid
from nets.decoders.fcn import create_aux_heads
from nets.decoders.uper import UPerDecoder
from nets.recipes import SGD_POLY, WITH_AUX
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# Stochastic depth of the authors' UPerNets, by the beginning of the backbone's name (MMSegmentation configs).
DROP_PATH = {
    "swin_": 0.3,
    "convnext": 0.4,
    "twins_pcpvt_base": 0.3,
    "twins_pcpvt_large": 0.3,
    "twins_svt_large": 0.3,
    "twins_": 0.2,
    "mae_": 0.1,
    "beit_l": 0.2,
    "beit_": 0.1,
}


@register_model
def upernet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    channels: int = 512,
    pool_scales: tuple[int, ...] = (1, 2, 3, 6),
    drop_path: float | None = None,
    dropout: float = 0.1,
    align_corners: bool = False,
    inner_align_corners: bool | None = None,
    feature_norm: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """UPerNet on the four deepest maps of any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: swin_t/s/b/l, convnext_t/s/b/l/xl, twins_pcpvt_s/b/l, twins_svt_s/b/l, vit_t/s/b/l,
            deit_t/s/b, mae_b/l, beit_b/l, a ResNet, any catalogue backbone.
        channels: width of the decoder.
        pool_scales: grids of the pooling pyramid, cells per side.
        drop_path: rate of stochastic depth; None is 0.3 on Swin, 0.4 on ConvNeXt, 0.2 or 0.3 on Twins,
            0.1 on MAE and BEiT (large 0.2), 0 elsewhere.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are enlarged.
        inner_align_corners: how maps are, where that is not as the logits.
        feature_norm: layer norm on each of the backbone's maps, as in segmentation_models.pytorch.
        norm_eps: epsilon of the decoder's batch norms.
        aux: build the usual auxiliary FCN head on the last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        backbone_options: arguments of the backbone's class instead of `drop_path` and its defaults.

    Raises:
        UserError: the backbone has fewer than four maps or maps of one resolution only.
    """
    encoder = create_pyramid(
        backbone,
        bands=bands,
        user="upernet",
        drop_path=drop_path,
        usual_drop_path=DROP_PATH,
        options=backbone_options,
    )
    decoder = UPerDecoder(
        encoder.channels,
        channels,
        pool_scales,
        align_corners=align_corners if inner_align_corners is None else inner_align_corners,
        norm_eps=norm_eps,
        feature_norm=feature_norm,
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


# What the transformers and ConvNeXt share (MMSegmentation configs/swin, vit, convnext: ADE20K, batch 16).
ADAMW = {
    "optimizer": "adamw",
    "lr": 6e-5,
    "weight_decay": 0.01,
    "poly_power": 1.0,
    "min_lr": 0.0,
    "warmup_iters": 1500,
    "warmup_factor": 1e-6,
}
VIT = {
    **ADAMW,
    "no_decay": ("norm", "pos_embed", "cls_token"),
    "model_options": {"drop_path": 0.0},
}
# MMSegmentation configs/mae and beit: ADE20K, batch 16, rates that fall from block to block.
MAE = {**ADAMW, "lr": 1e-4, "weight_decay": 0.05, "no_decay": ("vector",), "layer_decay": 0.65}
BEIT = {**MAE, "lr": 3e-5, "layer_decay": 0.9}
RECIPE = {
    "plain": {"optimizer": "adam", "lr": 3e-4, "warmup_fraction": 0.05},
    # MMSegmentation configs/upernet: ADE20K, ResNet, total batch 16.
    "paper": SGD_POLY | WITH_AUX,
    "paper_where": [
        (
            {"backbone": "swin_"},
            {
                **ADAMW,
                "no_decay": ("norm", "absolute_pos_embed", "relative_position_bias_table"),
                "model_options": {"drop_path": DROP_PATH["swin_"]},
            },
        ),
        ({"backbone": "twins_"}, {**ADAMW, "no_decay": ("norm", "pos_block")}),
        ({"backbone": "twins_pcpvt_small"}, {"batch_size": 32}),
        ({"backbone": "vit_"}, VIT),
        ({"backbone": "deit_"}, VIT),
        ({"backbone": "mae_"}, {**MAE, "model_options": {"channels": 768}}),
        ({"backbone": "mae_l"}, {"model_options": {"channels": 1024}}),
        ({"backbone": "beit_"}, {**BEIT, "model_options": {"channels": 768}}),
        (
            {"backbone": "beit_l"},
            {"lr": 2e-5, "layer_decay": 0.95, "warmup_iters": 3000, "model_options": {"channels": 1024}},
        ),
        (
            {"backbone": "convnext"},
            {
                **ADAMW,
                "lr": 1e-4,
                "weight_decay": 0.05,
                "no_decay": ("vector",),
                "layer_decay": 0.9,
                "layer_unit": "stage",
                "layer_count": 12,
                "model_options": {"drop_path": DROP_PATH["convnext"]},
            },
        ),
        ({"backbone": "convnext_tiny"}, {"layer_count": 6}),
        ({"backbone": "convnext_xlarge"}, {"lr": 8e-5}),
    ],
}
