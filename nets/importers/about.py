"""What an imported network knows beside its weights: classes, bands, normalisation."""

from collections.abc import Sequence

import torch

from nets.segmentation_model import SegmentationNetwork

# Red, green, blue of ImageNet in 0..1, the start of nearly all published weights.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RGB = ["red", "green", "blue"]
# Window of predict_large in pixels where a file does not say how large its training crops were.
USUAL_CROP = [512, 512]


def voc_color(index: int) -> list[int]:
    """Return PASCAL VOC's colour of a class: the bits of its number, dealt to red, green and blue in turn."""
    color = [0, 0, 0]
    for place in range(7, -1, -1):
        for channel in range(3):
            color[channel] |= (index >> channel & 1) << place
        index >>= 3
    return color


def describe_import(
    network: SegmentationNetwork,
    source: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    band_names: Sequence[str] | None = None,
    crop_size: Sequence[int] | None = None,
    label_offset: int = 0,
    epoch: int = 0,
) -> None:
    """Set the normalisation and `about` of an imported network; what is not said is assumed, and told.

    Args:
        network: with its weights.
        source: project that the file comes from.
        mean: per band in data units; without it and `std` ImageNet's for red, green, blue in 0..255.
        std: likewise.
        class_names: per class.
        colors: red, green, blue (0..255) per class; by default PASCAL VOC's.
        band_names: of the images.
        crop_size: default window in pixels.
        label_offset: 1 where label value 0 was ignored and value i is class i - 1, else 0.
        epoch: epochs trained.
    """
    assumed = []
    if mean is None or std is None:
        if network.bands == len(RGB):
            band_names = band_names or RGB
        mean, std, assumption = _assumed_normalization(network.bands)
        assumed.append(f"normalisation: {assumption}")
    if class_names is None:
        assumed.append("classes: numbered; the file does not name them")
        class_names = [f"class {i}" for i in range(network.num_classes)]
    network.mean.copy_(torch.tensor(list(mean)))
    network.std.copy_(torch.tensor(list(std)))
    if crop_size is None:
        assumed.append(f"crop: {USUAL_CROP[0]} x {USUAL_CROP[1]} pixels")
    network.about = {
        "source": source,
        "blueprint": network.blueprint,
        "task": network.task,
        "assumed": assumed,
        "classes": _classes(network.task, class_names, colors, label_offset),
        "bands": {"names": list(band_names or (f"band {i + 1}" for i in range(network.bands)))},
        "crop_size": list(crop_size or USUAL_CROP),
        "epoch": epoch,
        "metrics": {},
        "options": {},
    }


def _assumed_normalization(bands: int) -> tuple[list[float], list[float], str]:
    """Return means, deviations and what they are."""
    if bands == len(RGB):
        mean, std = ([255 * value for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return mean, std, "ImageNet's, for red, green, blue in 0..255"
    return [0.0] * bands, [1.0] * bands, "none; the file does not say how its images were scaled"


def _classes(
    task: str, names: Sequence[str], colors: Sequence[Sequence[int]] | None, label_offset: int
) -> dict[str, object]:
    """Return what a checkpoint says of classes and label values."""
    said = {
        "names": list(names),
        "colors": [list(color) for color in colors or map(voc_color, range(len(names)))],
        "table": [[index + label_offset, index] for index in range(len(names))],
        "ignored": [*range(label_offset), 255],
    }
    if task == "multilabel":
        said |= {"table": [[0, 0], [1, 1]], "kind": "presence"}  # absent and present
    return said
