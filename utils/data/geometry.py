"""Where a crop lies in its image, and how image and mask get there: one plan moves both.

Positions inside a picture are measured in pixels from its upper left corner: pixel i covers [i, i + 1).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils.data.augment_level import Level
from utils.data.labels import IGNORE
from utils.data.raster import Window

# Pixels of more bands would be resized one number after the other.
MOST_BYTE_BANDS = 4
FLIPS = ("none", "h", "hv", "d4")


class Rotation(NamedTuple):
    """A crop that is cut at an angle.

    Attributes:
        angle: Radians.
        row, column: Centre of the crop, from the corner of the window.
        scale: Crop pixels per image pixel.
    """

    angle: float
    row: float
    column: float
    scale: float


@dataclass(frozen=True)
class Plan:
    """One draw of crop, scale, rotation and symmetry.

    Attributes:
        window: What to read from the file.
        size: Rows and columns that the window becomes, before padding and turning.
        padded: Rows and columns after padding at the bottom and on the right, before turning.
        turns: Counter-clockwise quarter turns.
        mirror: Left and right change places, after turning.
        rotation: None where the crop's sides are parallel to the image's; then the window is only resized.
    """

    window: Window
    size: tuple[int, int]
    padded: tuple[int, int]
    turns: int
    mirror: bool
    rotation: Rotation | None = None


def draw_plans(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    crop_size: tuple[int, int],
    level: Level,
    flip: str,
    positions: np.ndarray | None = None,
) -> Iterator[Plan]:
    """Yield plans without end: scale, symmetry and angle are drawn once, the place anew for each.

    Args:
        rng: Source of all draws.
        image_size: Rows and columns of the image.
        crop_size: Rows and columns of the result.
        level: Ranges of scale and angle.
        flip: One of `FLIPS`.
        positions: Pixels (N, 2), row and column; each crop is placed so that it contains one of them.
    """
    scale = rng.uniform(*level.scale)
    turns, mirror = _draw_symmetry(rng, flip)
    angle = 0.0
    if level.rotate and rng.random() < level.chance:
        angle = math.radians(rng.uniform(-level.rotate, level.rotate))
    # A turn by a quarter exchanges the sides: what will be rows is cut as columns.
    padded = crop_size[::-1] if turns % 2 else tuple(crop_size)
    while True:
        pixel = (None, None) if positions is None else positions[rng.integers(len(positions))].tolist()
        top, height, rows = _draw_side(rng, image_size[0], padded[0], scale, pixel[0])
        left, width, columns = _draw_side(rng, image_size[1], padded[1], scale, pixel[1])
        window = Window(top, left, height, width)
        plan = Plan(window, (rows, columns), padded, turns, mirror)
        yield _rotated(plan, image_size, angle, scale, pixel) if angle else plan


def warp_image(plan: Plan, image: np.ndarray) -> np.ndarray:
    """Map the float window (C, h, w) to (C, *plan.size), bilinearly.

    NaN spreads to the pixels it touches; outside of the image is NaN.
    """
    if plan.rotation is None:
        return resize_image(image, plan.size)
    rows, columns, outside = _sources(plan)
    # grid_sample wants x before y, each from -1 to 1 over the picture.
    grid = np.stack([columns * (2 / image.shape[2]) - 1, rows * (2 / image.shape[1]) - 1], axis=-1)
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    grid = torch.from_numpy(grid.astype(image.dtype))[None]
    warped = F.grid_sample(tensor, grid, "bilinear", "border", align_corners=False)[0].numpy()
    warped[:, outside] = np.nan
    return warped


def warp_mask(plan: Plan, mask: np.ndarray) -> np.ndarray:
    """Map the mask of the window (..., h, w) to plan.size, each from the nearest pixel; IGNORE outside."""
    if plan.rotation is None:
        return resize_mask(mask, plan.size)
    rows, columns, outside = _sources(plan)
    rows = rows.clip(0, mask.shape[-2] - 1).astype(np.intp)
    columns = columns.clip(0, mask.shape[-1] - 1).astype(np.intp)
    warped = mask[..., rows, columns]
    warped[..., outside] = IGNORE
    return warped


def turn(array: np.ndarray, plan: Plan) -> np.ndarray:
    """Turn the last two axes and mirror the last one."""
    if not (plan.turns or plan.mirror):
        return np.ascontiguousarray(array)
    # torch mirrors many times faster than numpy; it moves bits, so the signed type of a width serves all.
    tensor = torch.from_numpy(array.view(f"i{array.itemsize}")).rot90(plan.turns, (-2, -1))
    return (tensor.flip(-1) if plan.mirror else tensor).contiguous().numpy().view(array.dtype)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (C, h, w) of floats or of `MOST_BYTE_BANDS` bytes bilinearly by pixel centres.

    NaN spreads to the pixels it touches. Bytes are rounded, columns first and then rows.
    """
    if image.shape[1:] == tuple(size):
        return image
    if image.dtype == np.uint8:
        # torch is fastest where the bands of a pixel stand together, as a decoded picture's do.
        pixels = np.ascontiguousarray(np.moveaxis(image, 0, 2))
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False)[0].numpy()
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False)[0].numpy()


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (..., h, w) to the nearest pixel centre: the geometry of `resize_image`."""
    if mask.shape[-2:] == tuple(size):
        return mask
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape[-2:], size, strict=True)
    )
    return mask[..., rows, :].take(columns, axis=-1)


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


def _draw_side(
    rng: np.random.Generator, length: int, crop: int, scale: float, pixel: int | None
) -> tuple[int, int, int]:
    """Return where the window starts, how long it is, and what it is resized to."""
    window = max(1, round(crop / scale))
    first, last = 0, max(0, length - window)
    if pixel is not None:
        first, last = max(first, min(last, pixel - window + 1)), min(last, pixel)
    start = rng.integers(first, last + 1)
    if window <= length:
        return int(start), window, crop
    return 0, length, min(crop, max(1, round(length * scale)))


def _rotated(
    plan: Plan,
    image_size: tuple[int, int],
    angle: float,
    scale: float,
    pixel: tuple[int | None, int | None],
) -> Plan:
    """Turn a plan's crop about its centre, moved so that no corner leaves the image where there is room.

    A `pixel` that the turned crop would lose is worth more than the angle: then the plan stays as it is.
    """
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    reach = (  # half of the upright box around the crop, in image pixels
        (cosine * plan.padded[0] + sine * plan.padded[1]) / (2 * scale),
        (sine * plan.padded[0] + cosine * plan.padded[1]) / (2 * scale),
    )
    centres, starts, lengths = [], [], []
    for axis, half in enumerate(reach):
        centre = plan.window[axis] + plan.window[axis + 2] / 2
        if 2 * half <= image_size[axis]:
            centre = min(max(centre, half), image_size[axis] - half)
        # One pixel more on either side, for the interpolation.
        start = max(0, math.floor(centre - half) - 1)
        stop = min(image_size[axis], math.ceil(centre + half) + 1)
        centres.append(centre - start)
        starts.append(start)
        lengths.append(stop - start)
    rotation = Rotation(angle, *centres, scale)
    window = Window(*starts, *lengths)
    turned = Plan(window, plan.padded, plan.padded, plan.turns, plan.mirror, rotation)
    if pixel[0] is None or _contains(turned, pixel[0], pixel[1]):
        return turned
    return plan


def _contains(plan: Plan, row: int, column: int) -> bool:
    """Return whether the middle of an image's pixel lies in a rotated crop."""
    angle, centre_row, centre_column, scale = plan.rotation
    down = row + 0.5 - plan.window.top - centre_row
    right = column + 0.5 - plan.window.left - centre_column
    cosine, sine = math.cos(angle), math.sin(angle)
    own = cosine * down - sine * right, sine * down + cosine * right
    return all(abs(distance) * scale < side / 2 for distance, side in zip(own, plan.padded, strict=True))


def _sources(plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row and column in the window of every pixel of the crop, and which lie outside (H, W)."""
    angle, row, column, scale = plan.rotation
    down = (np.arange(plan.size[0])[:, None] + 0.5 - plan.size[0] / 2) / scale
    right = (np.arange(plan.size[1])[None] + 0.5 - plan.size[1] / 2) / scale
    rows = row + math.cos(angle) * down + math.sin(angle) * right
    columns = column - math.sin(angle) * down + math.cos(angle) * right
    # The window ends where the image ends, or beyond what the crop needs.
    outside = (rows < 0) | (rows >= plan.window.height) | (columns < 0) | (columns >= plan.window.width)
    return rows, columns, outside
