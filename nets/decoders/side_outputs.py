"""Deep supervision that is part of the network: every level is scored, and all scores are joined."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers.init import init_classifier
from nets.layers.resize import resize
from nets.segmentation_model import SegmentationModel


class SideOutputModel(SegmentationModel):
    """`SegmentationModel` whose classifier joins the scores of several levels.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first.
        decoder: maps that list to maps (B, D_i, h_i, w_i), finest first, with `.channels`.
        num_classes: number of classes.
        kernel: side of the kernels that score the levels, in pixels.
        aux: training gives each level's scores too.
        network: further arguments of `SegmentationModel`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        num_classes: int,
        kernel: int,
        aux: bool,
        **network: object,
    ):
        widths: Sequence[int] = decoder.channels
        decoder.out_channels = len(widths) * num_classes
        super().__init__(backbone, decoder, num_classes=num_classes, **network)
        self.scores = nn.ModuleList(
            nn.Conv2d(width, num_classes, kernel, padding=kernel // 2) for width in widths
        )
        self.aux = aux
        for score in self.scores:
            init_classifier(score)

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h_0, w_0)}; training may add the levels' scores."""
        levels = self.decoder(features)
        scores = [score(self.dropout(x)) for score, x in zip(self.scores, levels, strict=True)]
        size = scores[0].shape[-2:]
        joined = torch.cat([resize(x, size, align_corners=self.align_corners) for x in scores], dim=1)
        outputs = {"logits": self.classifier(joined)}
        if self.training and self.aux:
            outputs["aux"] = scores
        return outputs
