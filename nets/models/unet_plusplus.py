"""UNet++: nested U-Nets of every depth share one encoder, and their maps fill the skips with convolutions.

Paper: Zhou, Siddiquee, Tajbakhsh, Liang, "UNet++: A Nested U-Net Architecture for Medical Image
Segmentation", DLMIA 2018, https://arxiv.org/abs/1807.10165; on classification networks: the same, "UNet++:
Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation", TMI 2020,
https://arxiv.org/abs/1912.05074

Backbones: "none" is the original network of 32 to 512 channels; any other name is a classification network
as the encoder, its decoder of the widths of the authors' code (https://github.com/MrGiovanni/UNetPlusPlus).

Deviations: convolutions are padded. Of the networks that deep supervision (`aux`) trains together the deepest
predicts; the paper averages them or prunes. The authors' dropout inside the blocks is left out. Maps of
classification networks are enlarged by nearest neighbour, the authors' default there. The nodes of
segmentation_models.pytorch between encoder and last column have the encoder's widths (`nodes=encoder`).
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nets.backbones.configured import create_configured_backbone
from nets.backbones.unet import UNetEncoder
from nets.decoders.joining import Enlargement, JoinBlock, doublings, repeated
from nets.errors import UserError
from nets.layers.init import init_classifier
from nets.registry import plain, register_model
from nets.segmentation_model import SegmentationModel

# Width of the original network's finest level (paper, table 2).
ORIGINAL_WIDTH = 32


class NestedDecoder(nn.Module):
    """Node X(i, j) joins the nodes before it in level i with the enlarged X(i + 1, j - 1) (paper, figure 1).

    Args:
        in_channels: channels of the encoder's maps X(i, 0), finest first.
        strides: their strides in pixels.
        channels: width of each level, coarsest first; missing ones repeat the last.
        nodes: whether nodes before the last column have the level's width or the encoder's.
        block: further arguments of `JoinBlock`.

    Attributes:
        column_channels: channels of the finest level's nodes before the last.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        *,
        nodes: Literal["decoder", "encoder"],
        **block: object,
    ):
        super().__init__()
        self.depth = len(in_channels) - 1
        last = repeated(channels, self.depth + doublings(strides[0]))
        widths = [[width] for width in in_channels]
        self.nodes = nn.ModuleDict()
        for j in range(1, self.depth + 1):
            for i in range(self.depth - j + 1):
                level = last[self.depth - 1 - i]
                width = in_channels[i] if nodes == "encoder" and i + j < self.depth else level
                self.nodes[f"{i}_{j}"] = JoinBlock(widths[i + 1][j - 1], sum(widths[i]), width, **block)
                widths[i].append(width)
        self.column_channels = widths[0][1:-1]
        self.tail = nn.ModuleList(
            JoinBlock(before, 0, width, **block)
            for before, width in zip(last[self.depth - 1 :], last[self.depth :], strict=False)
        )
        self.out_channels = last[-1]

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to (B, D, H, W) and the finest level's (B, D_j, h_0, w_0) before it."""
        levels = [[feature] for feature in features]
        for j in range(1, self.depth + 1):
            for i in range(self.depth - j + 1):
                levels[i].append(self.nodes[f"{i}_{j}"](levels[i + 1][j - 1], levels[i][::-1]))
        x = levels[0][-1]
        for block in self.tail:
            x = block(x)
        return x, levels[0][1:-1]


class NestedModel(SegmentationModel):
    """`SegmentationModel` whose training classifies the smaller networks' maps too, where that is wanted."""

    def __init__(
        self, backbone: nn.Module, decoder: NestedDecoder, *, num_classes: int, aux: bool, **network: object
    ):
        super().__init__(backbone, decoder, num_classes=num_classes, **network)
        self.column_classifiers = nn.ModuleList(
            nn.Conv2d(width, num_classes, 1) for width in decoder.column_channels if aux
        )
        for classifier in self.column_classifiers:
            init_classifier(classifier)

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)}; training adds the smaller networks'."""
        x, columns = self.decoder(features)
        outputs = {"logits": self.classifier(self.dropout(x))}
        if self.training and len(self.column_classifiers):
            pairs = zip(self.column_classifiers, columns, strict=True)
            outputs["aux"] = [classifier(self.dropout(column)) for classifier, column in pairs]
        return outputs


@register_model
def unet_plusplus(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["none"] | str = "none",
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    nodes: Literal["decoder", "encoder"] = "decoder",
    scse: bool = False,
    norm: bool | None = None,
    enlarge: Enlargement | None = None,
    dropout: float = 0.0,
    align_corners: bool = False,
    aux: bool = False,
    backbone_options: dict | None = None,
) -> NestedModel:
    """UNet++: the original (`backbone=none`), or on any backbone.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: "none" or any catalogue backbone.
        decoder_channels: widths on a classification network, coarsest level first.
        nodes: there, whether nodes before the last column have these widths or the encoder's.
        scse: weigh channels and pixels before and behind the convolutions of each node.
        norm: batch norm behind each convolution; None is on a classification network only.
        enlarge: how maps are enlarged; None is "transposed" in the original, else "nearest".
        dropout: rate of the channel dropout before the classifiers.
        align_corners: how the logits are resized to the image.
        aux: deep supervision: classifiers on the smaller networks' maps.
        backbone_options: arguments of the backbone's class.

    Raises:
        UserError: `nodes` for the original network.
    """
    original = plain(backbone) == "none"
    if original:
        if nodes != "decoder":
            raise UserError(
                f"unet_plusplus: nodes={nodes} is given with backbone none; it belongs to classification "
                "networks, as resnet50"
            )
        options = {"base_channels": ORIGINAL_WIDTH, "norm": bool(norm), **(backbone_options or {})}
        encoder = UNetEncoder(bands=bands, **options)
        decoder_channels = tuple(encoder.channels[-2::-1])
    else:
        encoder = create_configured_backbone(backbone, bands=bands, options=backbone_options)
    decoder = NestedDecoder(
        encoder.channels,
        encoder.strides,
        decoder_channels,
        nodes=nodes,
        scse=scse,
        norm=not original if norm is None else norm,
        enlarge=enlarge or ("transposed" if original else "nearest"),
    )
    return NestedModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        aux=aux,
        dropout=dropout,
        classifier_kernel=1 if original else 3,
        align_corners=align_corners,
    )


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 1e-3},
    # Paper, sections 2.2 and 3: the same loss on every output of deep supervision.
    "paper": {
        "optimizer": "adam",
        "lr": 3e-4,
        "scheduler": "constant",
        "loss": "ce:0.5+dice",
        "aux_weight": 1.0,
        "model_options": {"aux": True},
    },
}
