"""U-Net: climb back to the image's resolution, joining the encoder's map of each level on the way.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015, https://arxiv.org/abs/1505.04597

Backbones: "none" is the original network; "s5_d16" MMSegmentation's version of it (batch norm, bilinear
enlargement) with a small head on the finest map (`decoder`); any other name is a classification network as
the encoder, as in TernausNet (Iglovikov, Shvets, 2018, https://arxiv.org/abs/1801.05746).

Deviations: convolutions are padded, so that the logits have the image's size and no map is cropped. The
dropout at the end of the contracting path (section 3.1, which gives no rate) is left out, as MMSegmentation
does; the option `dropout` acts before the classifier. With a classification network the convolutions are
batch-normalised (`norm`) and maps are enlarged by nearest neighbour instead of a transposed convolution
(`enlarge`); the decoder's widths are those of segmentation_models.pytorch, as are its further forms: two
convolutions on the deepest map (`center`) and scSE attention (`scse`).
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.backbones.unet import UNetBackbone
from nets.decoders.aspp import V3Decoder
from nets.decoders.fcn import FCNDecoder, create_aux_heads
from nets.decoders.joining import Enlargement, JoinBlock, center_block, doublings, repeated
from nets.decoders.pyramid_pooling import PSPDecoder
from nets.errors import UserError
from nets.registry import plain, register_model
from nets.segmentation_model import SegmentationModel

# The original network and MMSegmentation's, by arguments of `UNetBackbone`.
ORIGINALS = {
    "none": {"up": "transposed", "norm": False},
    "s5d16": {"up": "interpolate", "norm": True},
}
# MMSegmentation's heads on the finest map (configs/_base_/models/*_unet_s5-d16.py).
HEADS = {
    "fcn": (FCNDecoder, {"channels": 64, "num_convs": 1, "concat_input": False, "index": (0,)}),
    "psp": (PSPDecoder, {"channels": 16, "pool_channels": 16, "index": 0}),
    "deeplabv3": (
        V3Decoder,
        {"channels": 16, "dilations": (1, 12, 24, 36), "join_kernel": 3, "index": 0},
    ),
}
# Arguments of the decoder on a classification network.
PLAIN = {"center": False, "scse": False, "norm": True, "enlarge": "nearest"}


class UNetDecoder(nn.Module):
    """One block per halving of resolution: enlarge, join the encoder's map if there is one, convolve twice.

    Args:
        in_channels: channels of the encoder's maps, finest first.
        strides: their strides in pixels.
        channels: width of the blocks, coarsest first; missing ones repeat the last.
        center: two convolutions on the deepest map.
        scse: weigh channels and pixels in each block.
        norm, enlarge: as `JoinBlock` takes them.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        *,
        center: bool = False,
        scse: bool = False,
        norm: bool = True,
        enlarge: Enlargement = "nearest",
    ):
        super().__init__()
        skips = in_channels[-2::-1]  # the deepest map is the start, not a skip
        skips = [*skips, *[0] * doublings(strides[0])]
        previous = in_channels[-1]
        self.center = center_block(previous, norm=norm) if center else nn.Identity()
        self.blocks = nn.ModuleList()
        for i, width in enumerate(repeated(channels, len(skips))):
            first = bool(skips[i]) or i < len(skips) - 1
            self.blocks.append(
                JoinBlock(previous, skips[i], width, norm=norm, enlarge=enlarge, scse=scse, first_scse=first)
            )
            previous = width
        self.out_channels = previous

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's (B, C_i, h_i, w_i) to (B, D, H, W) near the image's resolution."""
        x, skips = self.center(features[-1]), features[-2::-1]
        for i, block in enumerate(self.blocks):
            x = block(x, skips[i : i + 1])
        return x


@register_model
def unet(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["none", "s5_d16"] | str = "resnet50",
    decoder: Literal["fcn", "psp", "deeplabv3"] | None = None,
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    decoder_options: dict | None = None,
    center: bool = False,
    scse: bool = False,
    norm: bool = True,
    enlarge: Enlargement = "nearest",
    dropout: float | None = None,
    align_corners: bool = False,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    backbone_options: dict | None = None,
) -> SegmentationModel:
    """U-Net: the original (`backbone=none`), MMSegmentation's (`s5_d16`), or on any backbone.

    `decoder` and `decoder_options`, its arguments, belong to s5_d16 (there fcn and dropout 0.1 are the
    default); `decoder_channels`, coarsest first, and the further arguments of `UNetDecoder` belong to other
    backbones.
    """
    original = plain(backbone)
    if decoder is not None and original != "s5d16":
        raise UserError(f"unet: decoder={decoder} is given with backbone {backbone}; it belongs to s5_d16")
    details = {"center": center, "scse": scse, "norm": norm, "enlarge": enlarge}
    if original in ORIGINALS and details != PLAIN:
        raise UserError(
            f"unet: backbone {backbone} takes none of {', '.join(PLAIN)}; leave them out or choose "
            "another backbone, as resnet50"
        )
    if original in ORIGINALS:
        encoder = UNetBackbone(bands=bands, **{**ORIGINALS[original], **(backbone_options or {})})
        head, arguments = HEADS[decoder or "fcn"]
        if original == "none":
            arguments = {**arguments, "num_convs": 0}
        head = head(encoder.channels, **{**arguments, **(decoder_options or {})})
    else:
        encoder = create_configured_backbone(backbone, bands=bands, options=backbone_options)
        head = UNetDecoder(encoder.channels, encoder.strides, decoder_channels, **details)
    if dropout is None:
        dropout = 0.1 if original == "s5d16" else 0.0
    usual = (
        [{"channels": 64, "index": (1,)}] if aux and not aux_heads and original in ORIGINALS else aux_heads
    )
    return SegmentationModel(
        encoder,
        head,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        classifier_kernel=1 if original in ORIGINALS else 3,
        align_corners=align_corners,
        aux_heads=create_aux_heads(encoder.channels, num_classes, aux=aux, aux_heads=usual),
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 3e-4},
    # MMSegmentation configs/unet: Cityscapes, total batch 16, no pretraining.
    "paper": {
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "scheduler": "poly",
        "poly_power": 0.9,
        "min_lr": 1e-4,
        "batch_size": 16,
        "loss": "ce",
        "aux_weight": 0.4,
        "model_options": {"aux": True, "dropout": 0.1},
    },
}
