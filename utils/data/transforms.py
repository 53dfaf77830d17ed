"""Random crop, scale, symmetry and per-band brightness and contrast for images of any bands and dtype.

The crop is planned before anything is read, so that only its window of the file is read and resized.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nets.errors import UserError
from utils.data.labels import IGNORE
from utils.data.raster import Window

FLIPS = ("none", "h", "hv", "d4")
# What --AUGMENT names.
LEVELS: dict[str, dict] = {
    "none": {"scale": (1.0, 1.0), "probability": 0.0},
    "light": {"probability": 0.0},
    "standard": {},
}
# float32 holds these exactly; wider numbers are computed in float64.
_NARROW = ("uint8", "int8", "uint16", "int16", "float16", "float32")


@dataclass(frozen=True)
class Plan:
    """One draw of crop, scale and symmetry.

    Attributes:
        window: What to read from the file.
        size: Rows and columns that the window is resized to, before padding and turning.
        padded: Rows and columns after padding at the bottom and on the right, before turning.
        turns: Counter-clockwise quarter turns.
        mirror: Left and right change places, after turning.
    """

    window: Window
    size: tuple[int, int]
    padded: tuple[int, int]
    turns: int
    mirror: bool


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every training sample.

    Attributes:
        crop_size: Rows and columns of the result.
        scale: Smallest and largest factor of size.
        flip: "none"; "h": left-right; "hv": left-right and up-down; "d4": all eight symmetries of the square.
        band_std: Standard deviation of each band in the training set: the unit of `brightness`.
        brightness: Largest offset, in standard deviations of the band.
        contrast: Largest relative change of the deviation from the band's mean in the crop.
        probability: Chance that an image is varied; then each of its bands is, by its own draw.
    """

    crop_size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: str = "h"
    band_std: tuple[float, ...] = ()
    # The ratios of the bands tell classes apart: twice as much costs three points of mIoU in a short run.
    brightness: float = 0.1
    contrast: float = 0.1
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise UserError(f"flip {self.flip!r} is unknown; allowed are {', '.join(FLIPS)}")
        if min(self.crop_size) < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"crop {self.crop_size} and scale {self.scale} must be above 0 and in order")

    def plan(self, rng: np.random.Generator, height: int, width: int) -> Plan:
        """Draw a crop for an image of this size."""
        scale = rng.uniform(*self.scale)
        turns, mirror = _draw_symmetry(rng, self.flip)
        # A turn by a quarter exchanges the sides: what will be rows is cut as columns.
        padded = self.crop_size[::-1] if turns % 2 else self.crop_size
        top, window_height, rows = _draw_side(rng, height, padded[0], scale)
        left, window_width, columns = _draw_side(rng, width, padded[1], scale)
        return Plan(Window(top, left, window_height, window_width), (rows, columns), padded, turns, mirror)

    def apply(
        self,
        plan: Plan,
        image: np.ndarray,
        valid: np.ndarray,
        mask: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Carry out a plan on the pixels of its window.

        Args:
            plan: What `plan` drew.
            image: The window (C, h, w), any dtype, which is kept.
            valid: Its valid pixels (h, w).
            mask: Its class ids (h, w), int16.
            rng: Source of brightness and contrast.

        Returns:
            Image (C, H, W), valid (H, W) and mask (H, W) of `crop_size`. Pixels are zero and IGNORE where
            they are not valid: the padding, and all that an invalid pixel touched in resizing.
        """
        dtype = image.dtype
        image = image.astype(np.float32 if dtype.name in _NARROW else np.float64)
        if valid.all():
            image = resize_image(image, plan.size)
            valid = np.ones(plan.size, dtype=bool)
        else:
            image[:, ~valid] = np.nan
            image = resize_image(image, plan.size)
            valid = ~np.isnan(image).any(axis=0)
        mask = np.where(valid, resize_mask(mask, plan.size), IGNORE).astype(np.int16)
        self._vary(image, valid, rng)
        image[:, ~valid] = 0
        image = _to_dtype(image, dtype)
        missing = [(0, plan.padded[0] - plan.size[0]), (0, plan.padded[1] - plan.size[1])]
        if any(after for _, after in missing):
            image = np.pad(image, [(0, 0), *missing])
            valid = np.pad(valid, missing)
            mask = np.pad(mask, missing, constant_values=IGNORE)
        return _turn(image, plan), _turn(valid, plan), _turn(mask, plan)

    def _vary(self, image: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> None:
        """Change contrast and brightness of each band of a float image in place."""
        if rng.random() >= self.probability or not valid.any():
            return
        bands = len(image)
        gain = rng.uniform(1 - self.contrast, 1 + self.contrast, bands)
        unit = np.asarray(self.band_std or (0.0,) * bands)
        offset = rng.uniform(-self.brightness, self.brightness, bands) * unit
        for band, factor, shift in zip(image, gain, offset, strict=True):
            mean = band[valid].mean(dtype=np.float64)
            band *= factor
            band += shift + mean * (1.0 - factor)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a float image (C, h, w) bilinearly by pixel centres; NaN spreads to the pixels it touches."""
    if image.shape[1:] == tuple(size):
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False)[0].numpy()


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (h, w) to the nearest pixel centre: the geometry of `resize_image`."""
    if mask.shape == tuple(size):
        return mask
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows[:, None], columns]


def _draw_symmetry(rng: np.random.Generator, flip: str) -> tuple[int, bool]:
    """Return quarter turns and mirror; up-down is a half turn and a mirror."""
    if flip == "h":
        return 0, bool(rng.integers(2))
    if flip == "hv":
        left_right, up_down = rng.integers(2, size=2)
        return 2 * int(up_down), bool(left_right != up_down)
    if flip == "d4":
        return int(rng.integers(4)), bool(rng.integers(2))
    return 0, False


def _draw_side(rng: np.random.Generator, length: int, crop: int, scale: float) -> tuple[int, int, int]:
    """Return where the window starts, how long it is, and what it is resized to."""
    window = max(1, round(crop / scale))
    start = rng.integers(max(0, length - window) + 1)
    if window <= length:
        return int(start), window, crop
    return 0, length, min(crop, max(1, round(length * scale)))


def _to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    # The largest 64-bit integers are no float64: the next float above them would wrap.
    top = limits.max if dtype.itemsize < 8 else np.nextafter(float(limits.max), 0)
    return np.clip(np.rint(image), limits.min, top).astype(dtype)


def _turn(array: np.ndarray, plan: Plan) -> np.ndarray:
    """Turn the last two axes and mirror the last one."""
    array = np.rot90(array, plan.turns, axes=(-2, -1))
    return np.ascontiguousarray(array[..., ::-1] if plan.mirror else array)
