"""What networks share that score the patches of a plain transformer."""

from collections.abc import Sequence

from torch import Tensor, nn

from nets.layers.margins import crop
from nets.layers.resize import resize
from nets.segmentation_model import SegmentationNetwork


class PatchModel(SegmentationNetwork):
    """Plain transformer, which pads the image -> head that scores -> enlarge -> crop to the image.

    Args:
        backbone: maps (B, C, H, W) to a list of maps.
        head: maps one of them, or the list, to scores (B, K, h, w).
        bands: bands of an image.
        num_classes: number of classes.
        in_index: map that the head reads; None is the list.
        patch: side of a patch in pixels: scores are enlarged to the padded image and cropped; None enlarges
            them to the image itself.
        align_corners: how they are enlarged.
        aux_heads: auxiliary heads: modules that map the list to scores, with `.align_corners`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        bands: int,
        num_classes: int,
        in_index: int | None,
        patch: int | None,
        align_corners: bool,
        aux_heads: Sequence[nn.Module],
    ):
        super().__init__(bands, num_classes)
        self.backbone, self.head = backbone, head
        self.in_index, self.patch, self.align_corners = in_index, patch, align_corners
        self.aux_heads = nn.ModuleList(aux_heads)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}; training may add the list "aux"."""
        size = images.shape[-2:]
        features = self.backbone(self.normalize(images))
        logits = self.head(features if self.in_index is None else features[self.in_index])  # (B, K, h, w)
        grid = features[0].shape[-2:]
        whole = size if self.patch is None else tuple(self.patch * side for side in grid)
        outputs = {"logits": crop(resize(logits, whole, align_corners=self.align_corners), size)}
        if self.training and len(self.aux_heads):
            outputs["aux"] = [
                resize(head(features), size, align_corners=head.align_corners) for head in self.aux_heads
            ]
        return outputs
