"""The shape of every network here: normalise -> backbone -> decoder -> classifier -> resize to the image.

Or, where queries give masks: normalise -> backbone -> decoder -> classes and masks -> their sum per pixel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nets.decoders.fcn import FCNHead
from nets.layers.init import init_classifier, init_weights
from nets.layers.margins import crop
from nets.layers.precision import without_autocast
from nets.layers.resize import resize

# Queries whose masks are enlarged at once: the masks of all would take more memory than the rest.
QUERIES_AT_ONCE = 20


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map (B, C, H, W) in data units to zero mean and unit deviation per band, in the precision of `mean`.

    A pixel with NaN or infinity in any band is invalid: all its bands become 0, which is the band's mean.
    """
    # Autocast leaves these element-wise operations in float32.
    normalized = (images.to(mean.dtype) - mean[:, None, None]).div_(std[:, None, None])
    # Zero times NaN or infinity is NaN: half the passes over memory of `isfinite` and `all`.
    valid = (normalized * 0).sum(dim=1, keepdim=True) == 0
    return normalized.masked_fill_(~valid, 0)


class SegmentationNetwork(nn.Module):
    """What callers may rely on, whatever is inside.

    Attributes:
        bands, num_classes: as built.
        mean, std: per-band buffers in data units; training and prediction share them through the checkpoint.
        task: what the classes of a pixel are, one of `tasks`: "multiclass", one of K; "multilabel", any of K.
        tasks: what a network of this kind can be built for.
        size_divisor, min_size: image sides the caller must pad to (a multiple of, at least).
        blueprint: how `create_model` built the network.
        decided: options that the builder chose where "auto" left them open.
    """

    size_divisor = 1
    min_size = 32
    task = "multiclass"
    tasks: tuple[str, ...] = ("multiclass", "multilabel")
    blueprint: dict

    def __init__(self, bands: int, num_classes: int):
        super().__init__()
        self.bands, self.num_classes = bands, num_classes
        self.decided: dict[str, object] = {}
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    def normalize(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) in data units to normalised bands; see `normalize`."""
        return normalize(images, self.mean, self.std)

    def at_progress(self, share: float) -> None:
        """Take note of how much of the training is done, 0 to 1, before each of its steps."""

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Map the outputs of `forward` to class probabilities (B, K, H, W)."""
        logits = outputs["logits"]
        # Half precision would round the sum over many classes.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if self.task == "multilabel":
            return logits.to(dtype).sigmoid()
        return logits.softmax(dim=1, dtype=dtype)


class SegmentationModel(SegmentationNetwork):
    """Backbone -> decoder -> per-pixel classifier -> resize to the image.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first, with `.channels`.
        decoder: maps that list to one (B, D, h, w), with `.out_channels`.
        bands: bands of an image.
        num_classes: number of classes.
        dropout: rate of the channel dropout before the classifier.
        classifier_kernel: side of the classifier's kernel in pixels.
        classifier_bias: whether the classifier has a bias.
        align_corners: how the logits are resized to the image.
        aux_channels: width of the usual auxiliary FCN head, on the last feature map but one; 0 is none.
        aux_heads: auxiliary heads instead of the usual one: modules that map the backbone's maps to logits
            (B, K, h, w), with `.align_corners`.

    Attributes:
        enlarged: keys of a family's own outputs (B, D, h, w) that are resized to the image as the logits are.
    """

    enlarged: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        bands: int,
        num_classes: int,
        dropout: float = 0.0,
        classifier_kernel: int = 1,
        classifier_bias: bool = True,
        align_corners: bool = False,
        aux_channels: int = 0,
        aux_heads: Sequence[nn.Module] = (),
    ):
        super().__init__(bands, num_classes)
        self.backbone = backbone
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(
            decoder.out_channels,
            num_classes,
            classifier_kernel,
            padding=classifier_kernel // 2,
            bias=classifier_bias,
        )
        self.align_corners = align_corners
        if aux_channels and not aux_heads:
            aux_heads = [FCNHead(backbone.channels, num_classes, channels=aux_channels, dropout=dropout)]
        self.aux_heads = nn.ModuleList(aux_heads)
        init_weights(decoder)
        init_classifier(self.classifier)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}; training may add the list "aux"."""
        size = images.shape[-2:]
        features = self.encode(self.normalize(images))
        outputs = self.decode(features)
        for key in ("logits", *self.enlarged):
            if key in outputs:
                outputs[key] = resize(outputs[key], size, align_corners=self.align_corners)
        if self.training:
            aux = [resize(x, size, align_corners=self.align_corners) for x in outputs.pop("aux", [])]
            aux += [resize(head(features), size, align_corners=head.align_corners) for head in self.aux_heads]
            if aux:
                outputs["aux"] = aux
        return outputs

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map normalised images (B, C, H, W) to the maps that the decoder and the auxiliary heads read."""
        return self.backbone(x)

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)}.

        A family may add what its loss needs in training: "aux", a list of logits (B, K, h, w), or keys of its
        own.
        """
        return {"logits": self.classifier(self.dropout(self.decoder(features)))}


class ScoringModel(SegmentationNetwork):
    """Backbone -> decoder that ends in logits at the image's resolution -> crop to the image.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first.
        decoder: maps that list to logits (B, K, H', W') whose upper left part (H, W) is the image's.
        bands: bands of an image.
        num_classes: number of classes.
    """

    def __init__(self, backbone: nn.Module, decoder: nn.Module, *, bands: int, num_classes: int):
        super().__init__(bands, num_classes)
        self.backbone, self.decoder = backbone, decoder

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}."""
        logits = self.decoder(self.backbone(self.normalize(images)))
        return {"logits": crop(logits, images.shape[-2:])}


def sum_of_masks(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Map class logits (B, Q, K + 1) and mask logits (B, Q, h, w) to sums over the queries (B, K, *size).

    A pixel's sum for a class is that of class probability times mask probability, at most the number of
    queries. The masks are enlarged before they become probabilities, as Mask2Former's authors do.
    """
    dtype = torch.promote_types(mask_logits.dtype, torch.float32)
    # Half precision would round the sums until classes are equal.
    with without_autocast(mask_logits):
        classes = class_logits.to(dtype).softmax(dim=-1)[..., :-1]
        parts = (
            torch.einsum("bqk,bqhw->bkhw", chances, resize(masks.to(dtype), size).sigmoid())
            for chances, masks in zip(
                classes.split(QUERIES_AT_ONCE, dim=1), mask_logits.split(QUERIES_AT_ONCE, dim=1), strict=True
            )
        )
        total = next(parts)  # (B, K, H, W)
        for part in parts:
            total += part
    return total


class MaskNetwork(SegmentationNetwork):
    """A network whose queries find a class and a mask each; their sums per pixel are its "logits"."""

    tasks = ("multiclass",)  # a query is of one class

    def find(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalised (B, C, H, W) to lists of class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W), "mask_logits", "class_logits"}.

        The "logits" are sums of `sum_of_masks`; the lists have (B, Q, h, w) and (B, Q, K + 1) of every layer
        of the decoder, the last layer's last.
        """
        class_logits, mask_logits = self.find(self.normalize(images))
        last = (class_logits[-1], mask_logits[-1], images.shape[-2:])
        if self.training:
            # A loss on the lists does not need the sums' large intermediate maps; another makes them anew.
            logits = checkpoint(sum_of_masks, *last, use_reentrant=False, preserve_rng_state=False)
        else:
            logits = sum_of_masks(*last)
        return {"logits": logits, "mask_logits": mask_logits, "class_logits": class_logits}

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Map the outputs of `forward` to class probabilities (B, K, H, W): a class's share of all sums."""
        sums = outputs["logits"]
        sums = sums.to(torch.promote_types(sums.dtype, torch.float32))
        total = sums.sum(dim=1, keepdim=True)
        nowhere = total == 0  # where no query's mask is, all classes are alike
        # Not by a tiny number added to both: PyTorch's export to ONNX leaves out sums with less than 1e-8.
        return (sums / total.masked_fill(nowhere, 1)).masked_fill_(nowhere, 1 / sums.shape[1])


class MaskClassificationModel(MaskNetwork):
    """Backbone -> decoder with queries -> a class and a mask of each -> sum per pixel and class.

    Args:
        backbone: maps (B, C, H, W) to a list of feature maps, finest first, with `.channels`.
        pixel_decoder: maps that list to (maps, mask features).
        query_decoder: maps these two to lists of class logits (B, Q, K + 1) and mask logits (B, Q, h, w).
        bands: bands of an image.
        num_classes: number of classes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: nn.Module,
        query_decoder: nn.Module,
        *,
        bands: int,
        num_classes: int,
    ):
        super().__init__(bands, num_classes)
        self.backbone, self.pixel_decoder, self.query_decoder = backbone, pixel_decoder, query_decoder

    def find(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalised (B, C, H, W) to lists of class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""
        return self.query_decoder(*self.pixel_decoder(self.backbone(x)))
