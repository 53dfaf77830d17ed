"""The training samples as the flags want them: augmented, and drawn around rare classes."""

import argparse
from collections.abc import Sequence

from utils.data.augment_level import Level, parse_level, suit_bands
from utils.data.bands import rgb_order
from utils.data.dataset import SegmentationDataset
from utils.data.kept import KeptSamples
from utils.data.layout import DatasetInfo
from utils.data.photometric import BandRanges
from utils.data.rare_classes import RareClassSampling
from utils.data.samples import training_samples
from utils.data.transforms import Augmentation


def training_level(options: argparse.Namespace, data: DatasetInfo) -> tuple[Level, list[str]]:
    """Return the level of --AUGMENT as these bands allow it, and what had to be left out."""
    rgb = rgb_order(data.bands, data.band_names) is not None
    return suit_bands(parse_level(options.AUGMENT), data.bands, rgb=rgb)


def training_flip(options: argparse.Namespace, data: DatasetInfo) -> tuple[str, str]:
    """Return the random flips and the reason."""
    if options.FLIP:
        return options.FLIP, "--FLIP"
    if parse_level(options.AUGMENT).name == "none":
        return "none", "--AUGMENT"
    return ("d4", "images carry a CRS") if data.has_crs else ("h", "no CRS")


def training_set(
    options: argparse.Namespace,
    data: DatasetInfo,
    crop_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    kept: KeptSamples | None = None,
) -> SegmentationDataset:
    """Return the training split, augmented.

    Args:
        options: Flags of the run.
        data: The checked data set.
        crop_size: Rows and columns of a crop.
        mean: Of each band, as the network takes it off.
        std: Standard deviation of each band, as the network divides by it.
        kept: Keeps decoded images in memory.

    Raises:
        UserError: A piece of augmentation was asked for that these bands do not allow.
    """
    level, _ = training_level(options, data)
    flip, _ = training_flip(options, data)
    ranges = BandRanges(tuple(mean), tuple(std), rgb_order(data.bands, data.band_names))
    samples, rare_classes = training_samples(data.splits["train"], crop_size), None
    if options.RARE_CLASS_SAMPLING is not None:
        whole = data.splits["train"]
        rare_classes = RareClassSampling(whole, data.classes, options.RARE_CLASS_SAMPLING, options.SEED)
    augmentation = Augmentation(tuple(crop_size), level, flip, ranges)
    return SegmentationDataset(samples, data.classes, augmentation, options.SEED, rare_classes, kept)
