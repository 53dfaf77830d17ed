"""Plain transformers with the pyramids that their authors and MMSegmentation make of them: MAE, BEiT, ViT.

Papers: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022,
https://arxiv.org/abs/2106.08254; He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377, whose segmentation follows BEiT's; Dosovitskiy et al., ViT, ICLR 2021,
https://arxiv.org/abs/2010.11929

Deviations: images of other sizes than the positions are made for get theirs resized, bicubic, where the
authors' networks accept one size only.
"""

import re
from typing import Literal

from torch import Tensor, nn

from nets.backbones.necks import DeconvolvedMaps, ResizedMaps
from nets.backbones.staged import check_stages
from nets.backbones.timm_backbone import crop_maps, pad_to_multiple
from nets.backbones.vit import ViT
from nets.layers.init import init_weights

SCALES = (4, 2, 1, 0.5)
SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large"}
# What the beginning of a name says; BEiT's large size starts its scales lower.
KINDS = {
    "mae_": {"image_size": (512, 512), "relative_positions": True, "layer_scale": 1.0},
    "beit_": {
        "image_size": (640, 640),
        "relative_positions": True,
        "layer_scale": 0.1,
        "qkv_bias": "query_value",
        "position_embedding": False,
    },
    "beit_l": {"layer_scale": 1e-6},
}
# Blocks whose maps are given, from 0, by the number of blocks.
BLOCKS = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}


class PlainTransformer(ViT):
    """The last `stages` maps of a pyramid on a ViT.

    Args:
        name: vit_, deit_, mae_ or beit_ and the size, as vit_base_patch16_224 or mae_b.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all.
        pyramid: make a pyramid; otherwise the maps have the patches' stride.
        blocks: blocks whose maps are given, from 0, ascending.
        neck: "deconvolved" is BEiT's, "resized" MMSegmentation's of ViT, "none" is like `pyramid=False`.
        neck_options: further arguments of the neck's class.
        scales: enlargement of each map.
        crop: maps end where the image does, which is padded to whole pixels of the coarsest; otherwise the
            maps of a padded image are longer, as MMSegmentation's are.
        options: of `ViT`, instead of those that the name implies.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        pyramid: bool = True,
        blocks: tuple[int, ...] | None = None,
        neck: Literal["deconvolved", "resized", "none"] = "deconvolved",
        neck_options: dict | None = None,
        scales: tuple[float, ...] = SCALES,
        crop: bool = True,
        **options: object,
    ):
        implied = {"class_token": True}
        for beginning, values in KINDS.items():
            implied |= values if name.startswith(beginning) else {}
        size = SIZES[re.match(r"[a-z]+_([tsbl])", name)[1]]
        neck = neck if pyramid else "none"
        blocks = tuple(blocks or BLOCKS[options.get("depth") or (24 if size == "large" else 12)])
        count = check_stages(name, stages, len(blocks) if neck == "none" else len(scales))
        super().__init__(size, bands=bands, blocks=blocks[-count:], **(implied | options))
        self.name, self.crop = name, crop
        self.neck = self._build_neck(neck, scales[-count:], neck_options or {})
        if neck == "none":
            return
        init_weights(self.neck)
        self.strides = [int(self.patch / scale) for scale in scales[-count:]]
        self.channels = [(neck_options or {}).get("channels", self.channels[-1])] * count

    def _build_neck(self, kind: str, scales: tuple[float, ...], options: dict) -> nn.Module:
        if kind == "deconvolved":
            return DeconvolvedMaps(self.channels[-1], scales, **options)
        if kind == "resized":
            return ResizedMaps(self.channels, scales=scales, **({"channels": self.channels[-1]} | options))
        return nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, D, h_i, w_i), finest first."""
        if not self.crop:
            return self.neck(super().forward(x))
        maps = self.neck(super().forward(pad_to_multiple(x, max(self.strides))))
        return crop_maps(maps, self.strides, x.shape[-2:])
