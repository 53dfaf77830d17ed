"""The shape of every network here: normalise -> backbone -> decoder -> classifier -> resize to the image."""

import torch
from torch import Tensor, nn

from nets.layers.conv import ConvNormAct
from nets.layers.init import init_weights
from nets.layers.resize import resize


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map (B, C, H, W) in data units to zero mean and unit deviation per band, in the precision of `mean`.

    A pixel with NaN or infinity in any band is invalid: all its bands become 0, which is the band's mean.
    """
    with torch.autocast(images.device.type, enabled=False):
        normalized = (images.to(mean.dtype) - mean[:, None, None]) / std[:, None, None]
        valid = torch.isfinite(normalized).all(dim=1, keepdim=True)
        return torch.where(valid, normalized, torch.zeros((), dtype=mean.dtype, device=mean.device))


class SegmentationNetwork(nn.Module):
    """What callers may rely on, whatever is inside.

    Attributes:
        bands, num_classes: as built.
        mean, std: per-band buffers in data units; training and prediction share them through the checkpoint.
        task: "multiclass".
        size_divisor, min_size: image sides the caller must pad to (a multiple of, at least).
        blueprint: how `create_model` built the network.
    """

    size_divisor = 1
    min_size = 32
    task = "multiclass"
    blueprint: dict

    def __init__(self, bands: int, num_classes: int):
        super().__init__()
        self.bands, self.num_classes = bands, num_classes
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    def normalize(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) in data units to normalised bands; see `normalize`."""
        return normalize(images, self.mean, self.std)

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Map the outputs of `forward` to class probabilities (B, K, H, W)."""
        logits = outputs["logits"]
        # Half precision would round the sum over many classes.
        return logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


class SegmentationModel(SegmentationNetwork):
    """Backbone -> decoder -> per-pixel classifier -> resize to the image.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first, with `.channels`.
        decoder: maps that list to one (B, D, h, w), with `.out_channels`.
        bands: bands of an image.
        num_classes: number of classes.
        dropout: rate of the channel dropout before the classifier.
        classifier_kernel: side of the classifier's kernel in pixels.
        aux_channels: width of the auxiliary FCN head on the last feature map but one; 0 is none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        bands: int,
        num_classes: int,
        dropout: float = 0.0,
        classifier_kernel: int = 1,
        aux_channels: int = 0,
    ):
        super().__init__(bands, num_classes)
        self.backbone = backbone
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(
            decoder.out_channels, num_classes, classifier_kernel, padding=classifier_kernel // 2
        )
        self.aux_head = None
        if aux_channels:
            self.aux_head = nn.Sequential(
                ConvNormAct(backbone.channels[-2], aux_channels, 3),
                nn.Dropout2d(dropout),
                nn.Conv2d(aux_channels, num_classes, 1),
            )
            init_weights(self.aux_head)
        init_weights(decoder)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}; training may add the list "aux"."""
        size = images.shape[-2:]
        features = self.backbone(self.normalize(images))
        logits = self.classifier(self.dropout(self.decoder(features)))  # (B, K, h, w)
        outputs = {"logits": resize(logits, size)}
        if self.training and self.aux_head is not None:
            outputs["aux"] = [resize(self.aux_head(features[-2]), size)]
        return outputs
