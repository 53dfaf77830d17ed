"""The fully convolutional head: convolutions on one map, as decoder or as auxiliary classifier."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct, SeparableConv, set_norm_eps
from nets.layers.init import init_classifier, init_weights
from nets.layers.resize import resize

# The map that the usual auxiliary head reads: the last but one.
AUX_INDEX = (-2,)


def joined_channels(in_channels: Sequence[int], index: Sequence[int]) -> int:
    """Return the channels of the map that `select_features` makes."""
    return sum(in_channels[i] for i in index)


def select_features(features: list[Tensor], index: Sequence[int], *, align_corners: bool) -> Tensor:
    """Map the (B, C_i, h_i, w_i) to the maps at `index`, resized to the first of them and concatenated."""
    if len(index) == 1:
        return features[index[0]]
    chosen = [features[i] for i in index]
    size = chosen[0].shape[-2:]
    return torch.cat([resize(x, size, align_corners=align_corners) for x in chosen], dim=1)


class FCNDecoder(nn.Module):
    """Convolutions of one width, then the input joined again.

    Args:
        in_channels: channels of the backbone's maps.
        channels: width.
        index: maps that are used; several are resized to the first of them and concatenated.
        num_convs: number of convolutions; 0 passes the map on.
        kernel_size, dilation: of the convolutions.
        concat_input: join the result with the input by one more convolution.
        context: module behind the first convolution, where the deepest features see the whole scene.
        align_corners: how several maps are resized.
        norm_eps: epsilon of the batch norms.
        separable: depthwise separable convolutions.
        act_between: ReLU between the two parts of these.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        index: Sequence[int] = (-1,),
        num_convs: int = 2,
        kernel_size: int = 3,
        dilation: int = 1,
        concat_input: bool = True,
        context: nn.Module | None = None,
        align_corners: bool = False,
        norm_eps: float = 1e-5,
        separable: bool = False,
        act_between: bool = True,
    ):
        super().__init__()
        self.index, self.align_corners = tuple(index), align_corners
        conv = partial(SeparableConv, act_between=act_between) if separable else ConvNormAct
        width = joined_channels(in_channels, index)
        self.convs = nn.Sequential()
        for i in range(num_convs):
            before = width if i == 0 else channels
            self.convs.append(conv(before, channels, kernel_size, dilation=dilation))
            if i == 0 and context is not None:
                self.convs.append(context)
        self.out_channels = channels if num_convs or concat_input else width
        after = channels if num_convs else width
        self.join = conv(width + after, channels, kernel_size) if concat_input else None
        set_norm_eps(self, norm_eps)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to (B, D, h, w) of the chosen map."""
        x = select_features(features, self.index, align_corners=self.align_corners)
        decoded = self.convs(x)
        return decoded if self.join is None else self.join(torch.cat([x, decoded], dim=1))


class FCNHead(nn.Module):
    """The decoder with dropout and classifier, as auxiliary head (Zhao et al., PSPNet, section 3.3).

    Args:
        in_channels: channels of the backbone's maps.
        num_classes: number of classes.
        channels: width.
        index: maps that are used.
        num_convs: number of convolutions.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how the logits are resized to the image.
        decoder: further arguments of `FCNDecoder`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        index: Sequence[int] = AUX_INDEX,
        num_convs: int = 1,
        concat_input: bool = False,
        dropout: float = 0.1,
        align_corners: bool = False,
        **decoder: object,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.decoder = FCNDecoder(
            in_channels,
            channels,
            index=index,
            num_convs=num_convs,
            concat_input=concat_input,
            align_corners=align_corners,
            **decoder,
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(self.decoder.out_channels, num_classes, 1)
        init_weights(self.decoder)
        init_classifier(self.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the (B, C_i, h_i, w_i) to logits (B, K, h, w) of the chosen map."""
        return self.classifier(self.dropout(self.decoder(features)))


def create_aux_heads(
    in_channels: Sequence[int], num_classes: int, *, aux: bool, aux_heads: Sequence[dict]
) -> list[FCNHead]:
    """Build the auxiliary heads that `aux_heads` describes, or the usual one where `aux` asks for it.

    Args:
        in_channels: channels of the backbone's maps.
        num_classes: number of classes.
        aux: whether there is the usual head, on the last map but one.
        aux_heads: arguments of each head; goes before `aux`.
    """
    return [FCNHead(in_channels, num_classes, **arguments) for arguments in _described(aux, aux_heads)]


def count_stages(index: Sequence[int], *, aux: bool, aux_heads: Sequence[dict]) -> int | None:
    """Return how many of a backbone's deepest maps are read; None is all.

    A backbone that is asked for these alone does not build what no loss would reach.

    Args:
        index: maps that the decoder reads; one that is counted from the finest needs all.
        aux: as for `create_aux_heads`.
        aux_heads: as for `create_aux_heads`.
    """
    read = [*index, *(i for head in _described(aux, aux_heads) for i in head.get("index", AUX_INDEX))]
    return None if max(read) >= 0 else -min(read)


def _described(aux: bool, aux_heads: Sequence[dict]) -> list[dict]:
    """Return the arguments of each auxiliary head."""
    return list(aux_heads) or ([{}] if aux else [])
