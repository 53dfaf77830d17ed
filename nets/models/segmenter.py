"""Segmenter: patches and classes are tokens of one transformer, and their products are the masks.

Paper: Strudel et al., "Segmenter: Transformer for Semantic Segmentation", ICCV 2021,
https://arxiv.org/abs/2105.05633

Deviations: none; sizes and rates are those of the authors' code
(https://github.com/rstrudel/segmenter). MMSegmentation resizes the position embedding bicubically, enlarges
the scores of a padded image to the image's own size (`unpad=false`) and drops residual branches in the
decoder (`decoder_drop_path=0.1`, `decoder_dropout=0`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nets.backbones.vit import VIT_SIZES, ViT
from nets.decoders.fcn import create_aux_heads
from nets.decoders.patches import PatchModel
from nets.layers.init import init_classifier, init_weights
from nets.registry import register_model

# Channels of each head of the attention.
HEAD_CHANNELS = 64


class MaskTransformer(nn.Module):
    """A token per class joins the patches; a class's score is the cosine of its token and a patch.

    Args:
        in_channels: channels of the map.
        num_classes: number of classes.
        channels: width of the transformer.
        layers: number of blocks.
        heads: heads of the attention.
        mlp_ratio: width of the MLPs, relative.
        qkv_bias: the projections of the attention have biases.
        drop_path: rate of stochastic depth at the last block.
        dropout: rate of dropout behind attention and in the MLPs.
        attention_dropout: rate of dropout on the attention's weights.
        norm_eps: epsilon of the layer norms.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int,
        *,
        layers: int,
        heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        dropout: float,
        attention_dropout: float,
        norm_eps: float,
    ):
        super().__init__()
        self.enter = nn.Linear(in_channels, channels)
        self.class_tokens = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(1, num_classes, channels), std=0.02)
        )
        self.blocks = nn.Sequential()
        for rate in torch.linspace(0, drop_path, layers, device="cpu").tolist():
            rates = {"proj_drop": dropout, "attn_drop": attention_dropout}
            block = Block(channels, heads, mlp_ratio, qkv_bias=qkv_bias, **rates)
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
            if not qkv_bias:
                block.attn.proj.bias = None
            self.blocks.append(block)
        self.norm = nn.LayerNorm(channels)
        self.project_patches = nn.Linear(channels, channels, bias=False)
        self.project_classes = nn.Linear(channels, channels, bias=False)
        self.mask_norm = nn.LayerNorm(num_classes)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = norm_eps
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to scores (B, K, h, w)."""
        batch, size, classes = x.shape[0], x.shape[-2:], self.class_tokens.shape[1]
        patches = self.enter(x.flatten(2).transpose(1, 2))  # (B, N, D)
        tokens = torch.cat([patches, self.class_tokens.expand(batch, -1, -1)], dim=1)
        tokens = self.norm(self.blocks(tokens))
        patches = F.normalize(self.project_patches(tokens[:, :-classes]), dim=2)
        tokens = F.normalize(self.project_classes(tokens[:, -classes:]), dim=2)
        scores = self.mask_norm(patches @ tokens.transpose(1, 2))  # (B, N, K)
        return scores.transpose(1, 2).unflatten(2, size)


@register_model
def segmenter(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["tiny", "small", "base", "large"] = "small",
    decoder: Literal["mask", "linear"] = "mask",
    patch: int = 16,
    channels: int | None = None,
    decoder_layers: int = 2,
    decoder_heads: int | None = None,
    decoder_mlp_ratio: float = 4.0,
    decoder_bias: bool = True,
    decoder_drop_path: float = 0.0,
    decoder_dropout: float = 0.1,
    decoder_attention_dropout: float = 0.0,
    decoder_norm_eps: float = 1e-5,
    drop_path: float = 0.1,
    dropout: float = 0.0,
    unpad: bool = True,
    align_corners: bool = False,
    layers: tuple[int, ...] | None = None,
    in_index: int = -1,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> PatchModel:
    """Segmenter on ViT tiny to large, with the mask transformer or a linear classifier of patches.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of the vision transformer.
        decoder: "mask" or "linear".
        patch: side of a patch in pixels; the paper has 8, 16 and 32.
        channels: width of the mask transformer; None is the backbone's.
        decoder_layers: number of its blocks.
        decoder_heads: heads of its attention; None is one for 64 channels.
        decoder_mlp_ratio: width of its MLPs, relative.
        decoder_bias: the projections of its attention have biases.
        decoder_drop_path: rate of stochastic depth at its last block.
        decoder_dropout: rate of dropout behind its attention and in its MLPs.
        decoder_attention_dropout: rate of dropout on its attention's weights.
        decoder_norm_eps: epsilon of its layer norms.
        drop_path: rate of stochastic depth at the backbone's last block.
        dropout: rate of the channel dropout before the linear classifier.
        unpad: enlarge the scores to the padded image and crop them; otherwise they are enlarged to the image.
        align_corners: how scores are enlarged.
        layers: blocks, from 0, whose maps are given; None is the last one.
        in_index: the one of them that is classified.
        aux: build the usual auxiliary FCN head on the last map but one of `layers`.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        backbone_options: further arguments of the backbone's class.
    """
    own = {"class_token": True, "final_norm": True, "position_interpolation": "bilinear", "patch": patch}
    own |= {"drop_path": drop_path, **(backbone_options or {})}
    depth = own.get("depth") or VIT_SIZES[backbone].depth
    encoder = ViT(backbone, bands=bands, blocks=tuple(layers or (depth - 1,)), **own)
    width = encoder.channels[in_index]
    if decoder == "linear":
        head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
        init_classifier(head[1])
    else:
        head = MaskTransformer(
            width,
            num_classes,
            channels or width,
            layers=decoder_layers,
            heads=decoder_heads or max(1, (channels or width) // HEAD_CHANNELS),
            mlp_ratio=decoder_mlp_ratio,
            qkv_bias=decoder_bias,
            drop_path=decoder_drop_path,
            dropout=decoder_dropout,
            attention_dropout=decoder_attention_dropout,
            norm_eps=decoder_norm_eps,
        )
    return PatchModel(
        encoder,
        head,
        bands=bands,
        num_classes=num_classes,
        in_index=in_index,
        patch=encoder.patch if unpad else None,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=aux_heads),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-4, "warmup_fraction": 0.05},
    # MMSegmentation configs/segmenter and the authors' code: ADE20K, total batch 8, no decay.
    "paper": {
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 8,
        "loss": "ce",
        "model_options": {"drop_path": 0.1, "dropout": 0.0},
    },
}
