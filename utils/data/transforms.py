"""Random changes of a training sample: where it is cut, how it is turned, and what becomes of its values.

The crop is planned before anything is read, so that only its window of the file is read and resized.
`--AUGMENT` and its table of levels: utils/data/augment_level.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nets.errors import UserError
from utils.data.augment_level import NOTHING, Level
from utils.data.geometry import FLIPS, MOST_BYTE_BANDS, Plan, draw_plans, turn, warp_image, warp_mask
from utils.data.labels import IGNORE
from utils.data.mixing import Crop
from utils.data.photometric import UNKNOWN, BandRanges, changes_values, vary

# float32 holds these exactly; wider numbers are computed in float64.
_NARROW = ("uint8", "int8", "uint16", "int16", "float16", "float32")


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every training sample.

    Attributes:
        crop_size: Rows and columns of the result.
        level: Strength of every piece.
        flip: "none"; "h": left-right; "hv": left-right and up-down; "d4": all eight symmetries of the square.
        ranges: What is known of the bands' values.
    """

    crop_size: tuple[int, int]
    level: Level = NOTHING
    flip: str = "h"
    ranges: BandRanges = UNKNOWN

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise UserError(f"flip {self.flip!r} is unknown; allowed are {', '.join(FLIPS)}")
        if min(self.crop_size) < 1:
            raise UserError(f"crop {self.crop_size} must be above 0")

    def plans(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        crop_size: tuple[int, int] | None = None,
        positions: np.ndarray | None = None,
    ) -> Iterator[Plan]:
        """Yield crops of an image of this size without end: one scale and turn, ever new places.

        Args:
            rng: Source of the draws.
            height: Rows of the image.
            width: Columns of the image.
            crop_size: Rows and columns of the result, where it is but a part of a crop.
            positions: Pixels (N, 2) of which each crop contains one.
        """
        size = crop_size or self.crop_size
        return draw_plans(rng, (height, width), size, self.level, self.flip, positions)

    def plan(self, rng: np.random.Generator, height: int, width: int) -> Plan:
        """Draw a crop for an image of this size."""
        return next(self.plans(rng, height, width))

    def apply(
        self,
        plan: Plan,
        image: np.ndarray,
        valid: np.ndarray,
        mask: np.ndarray,
        rng: np.random.Generator,
        warped: np.ndarray | None = None,
    ) -> Crop:
        """Carry out a plan on the pixels of its window.

        Args:
            plan: What `plan` drew.
            image: The window (C, h, w), any dtype, which is kept.
            valid: Its valid pixels (h, w).
            mask: Its class ids (h, w), or (K, h, w) of 0 and 1; int16.
            rng: Source of the changes of values.
            warped: What `warp_mask` makes of the mask, where it is known.

        Returns:
            Image (C, H, W), valid (H, W) and mask (..., H, W) of the crop. Pixels are zero and IGNORE where
            they are not valid: the padding, and all that an invalid pixel touched in resizing.
        """
        if plan.rotation is None and valid.all():
            image, valid = self._apply_to_all(plan, image, rng)
            mask = warp_mask(plan, mask) if warped is None else warped
        else:
            image, valid, mask = self._apply_to_valid(plan, image, valid, mask, rng)
        missing = [(0, plan.padded[0] - plan.size[0]), (0, plan.padded[1] - plan.size[1])]
        if any(after for _, after in missing):
            image = np.pad(image, [(0, 0), *missing])
            valid = np.pad(valid, missing)
            mask = np.pad(mask, [*[(0, 0)] * (mask.ndim - 2), *missing], constant_values=IGNORE)
        return Crop(turn(image, plan), turn(valid, plan), turn(mask, plan))

    def _apply_to_all(
        self, plan: Plan, image: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Resize and change a window in which every pixel is valid."""
        dtype = image.dtype
        if dtype == np.uint8 and len(image) <= MOST_BYTE_BANDS:
            image = warp_image(plan, image)
            if not changes_values(self.level):
                return image, np.ones(plan.size, dtype=bool)
        image = image.astype(_computed(dtype), order="C")
        image = warp_image(plan, image)
        valid = np.ones(plan.size, dtype=bool)
        vary(image, valid, self.level, self.ranges, rng)
        return to_dtype(image, dtype), valid

    def _apply_to_valid(
        self, plan: Plan, image: np.ndarray, valid: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> Crop:
        """Warp and change a window of which pixels are not valid, or become so where it is turned."""
        dtype = image.dtype
        image = image.astype(_computed(dtype), order="C")
        image[:, ~valid] = np.nan
        image = warp_image(plan, image)
        valid = ~np.isnan(image).any(axis=0)
        mask = np.where(valid, warp_mask(plan, mask), IGNORE).astype(np.int16)
        vary(image, valid, self.level, self.ranges, rng)
        image[:, ~valid] = 0
        return Crop(to_dtype(image, dtype), valid, mask)


def _computed(dtype: np.dtype) -> type:
    return np.float32 if dtype.name in _NARROW else np.float64


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round and limit computed values to what a dtype holds; `image` is used up."""
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        narrow = limits.max < np.finfo(image.dtype).max
        return (image.clip(limits.min, limits.max) if narrow else image).astype(dtype)
    limits = np.iinfo(dtype)
    if image.dtype == np.float32 and dtype.itemsize < 4:
        np.rint(image, out=image)
        return image.clip(limits.min, limits.max, out=image).astype(dtype)
    # The largest 64-bit integers are no float64: the next float above them would wrap.
    top = limits.max if dtype.itemsize < 8 else np.nextafter(float(limits.max), 0)
    return np.clip(np.rint(image), limits.min, top).astype(dtype)
