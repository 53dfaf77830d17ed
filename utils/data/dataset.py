"""Samples as arrays: whole, or cut and changed at random.

Every random choice follows from (seed, epoch, position): it depends neither on the number of workers nor on
what was drawn before, so a resumed run sees what an uninterrupted one sees.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from utils.data.geometry import Plan, warp_mask
from utils.data.kept import KeptSamples
from utils.data.labels import IGNORE, Classes
from utils.data.masks import MaskWindows, class_pixels, read_mask
from utils.data.mixing import Crop, cut_out, draw_patches, join
from utils.data.rare_classes import RareClassSampling
from utils.data.raster import Window
from utils.data.samples import Sample, draw_view, view_around
from utils.data.source import read_source
from utils.data.transforms import Augmentation

# Places that are tried for a crop without one class nearly everywhere, as in MMSegmentation.
_PLACES = 10


class Key(NamedTuple):
    """One training draw: the epoch, the position in its order, and the sample."""

    epoch: int
    position: int
    index: int


class SegmentationDataset(Dataset):
    """Images with their masks.

    Args:
        samples: The files.
        classes: Meaning of the label values.
        augmentation: None returns whole images for an int index; otherwise crops for a `Key`.
        seed: Start of every random choice.
        rare_classes: Chooses image and place of every crop, instead of the key's index.
        kept: Keeps what is read for crops in memory.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Classes,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rare_classes: RareClassSampling | None = None,
        kept: KeptSamples | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        self.augmentation = augmentation
        self.seed = seed
        self.rare_classes = rare_classes
        self.kept = kept

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Key) -> dict[str, np.ndarray | str]:
        """Return "image" (C, H, W), "valid" (H, W), "mask" where there is a label, and "name"."""
        if self.augmentation is None:
            sample = self.samples[key]
            image, valid, mask = self._read(sample, None)
            # In another order of memory, which a batch would keep, networks round differently.
            image = np.ascontiguousarray(image)
        else:
            sample, (image, valid, mask) = self._draw(Key(*key))
        item = {"image": image, "valid": valid, "name": sample.name}
        return item if sample.label is None else {**item, "mask": mask}

    def _draw(self, key: Key) -> tuple[Sample, Crop]:
        """Return the sample of a key and its crop, mixed with others where the level says so."""
        rng = np.random.default_rng((self.seed, key.epoch, key.position))
        augmentation, index, class_id = self.augmentation, key.index, None
        if self.rare_classes is not None:
            class_id, index = self.rare_classes.draw(rng)
        patches = draw_patches(rng, augmentation.crop_size, augmentation.level)
        first = self.samples[index] if class_id is None else self.rare_classes.samples[index]
        crops = [self._crop(rng, first, patches[0], None if class_id is None else (index, class_id))]
        for patch in patches[1:]:
            crops.append(self._crop(rng, self.samples[rng.integers(len(self.samples))], patch))
        crop = join(crops, patches, augmentation.crop_size)
        cut_out(crop, augmentation.level, augmentation.ranges.means(len(crop.image)), rng)
        return first, crop

    def _crop(
        self, rng: np.random.Generator, sample: Sample, patch: Window, rare: tuple[int, int] | None = None
    ) -> Crop:
        """Return a crop of a sample of a patch's size.

        Args:
            rng: Source of the draws.
            sample: A tile, or a scene in which the crop is placed where labels are.
            patch: The place of the result.
            rare: Index among the rare classes' samples, and a class of which the crop shall hold a pixel.
        """
        augmentation = self.augmentation
        kept = None if self.kept is None else self.kept.whole(sample)
        masks = MaskWindows(sample, self.classes, None if kept is None else kept.mask)
        if rare is None:
            sample, positions = draw_view(sample, rng)
        else:
            positions = self.rare_classes.positions(*rare, masks)
            if sample.avoid and positions is not None:
                sample, positions = view_around(sample, positions[rng.integers(len(positions))])
        if sample is not masks.sample:
            masks = MaskWindows(sample, self.classes)
        plans = augmentation.plans(rng, sample.height, sample.width, patch[2:], positions)
        plan, mask, warped = next(plans), None, None
        if rare is not None:
            mask = masks[plan.window]
        if augmentation.level.cat_max_ratio < 1 and sample.label is not None:
            plan, mask, warped = _mixed_plan(plan, plans, masks, augmentation.level.cat_max_ratio)
        if kept is None:
            image, valid, mask = self._read(sample, plan.window, mask)
        else:
            image, valid = kept.cut(plan.window)
            mask = masks[plan.window] if mask is None else mask
        return augmentation.apply(plan, image, valid, mask, rng, warped)

    def _read(
        self, sample: Sample, window: Window | None, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, valid and mask of a window; a `mask` that is already read is not read again."""
        image, valid = read_source(sample.source, sample.inside(window))
        if mask is None:
            return image, valid, read_mask(sample, self.classes, window, valid)
        return image, valid, mask if valid.all() else np.where(valid, mask, IGNORE)


def _mixed_plan(
    plan: Plan, plans: Iterator[Plan], masks: MaskWindows, most: float
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """Return the first of ten plans, or the last, whose crop is not more than `most` of one class.

    With it come the mask of its window, and that of the crop.
    """
    for attempt in range(1, _PLACES + 1):
        mask = masks[plan.window]
        crop = warp_mask(plan, mask)
        counts, labelled = class_pixels(crop)
        if counts.any() and counts.max() <= most * labelled:
            break
        only_place = plan.rotation is None and plan.window == (0, 0, *masks.size)
        if only_place or attempt == _PLACES:
            break
        plan = next(plans)
    return plan, mask, crop
