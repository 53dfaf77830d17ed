"""Overlays: the class map in colour over the image; of a scene a small one, drawn while it streams by."""

import math
from collections.abc import Mapping

import numpy as np

from utils.data.bands import rgb_bands
from utils.data.labels import Classes
from utils.data.raster import RasterInfo, Window
from utils.evaluation.overlays import overlay, preview
from utils.inference.class_map import class_dtype, map_shape, no_data_value

LONGEST_SIDE = 2048
_ROWS = 256  # drawn at a time: mixing colours takes 24 bytes of scratch per pixel and copy


def draw_overlay(picture: np.ndarray, class_map: np.ndarray, classes: Classes) -> np.ndarray:
    """Return the colours of a class map over a picture uint8 (H, W, 3); no-data shows the picture."""
    nothing = no_data_value(classes.num_classes)
    drawn = np.empty_like(picture)
    for top in range(0, len(picture), _ROWS):
        rows = slice(top, top + _ROWS)
        drawn[rows] = overlay(picture[rows], class_map[..., rows, :], classes.colors, ignored=nothing)
    return drawn


def image_overlay(
    info: RasterInfo, image: np.ndarray, valid: np.ndarray, class_map: np.ndarray, classes: Classes
) -> np.ndarray:
    """Return the overlay, uint8 (H, W, 3), of a whole image (C, H, W)."""
    picture = preview(image, valid, rgb_bands(info.bands, info.band_names))
    return draw_overlay(picture, class_map, classes)


class QuickLook:
    """A small overlay of a scene: every n-th pixel of every n-th row, gathered from the rows as they pass.

    Args:
        info: header of the scene.
        classes: names and colours.
        longest: the most pixels of its longer side.
    """

    def __init__(self, info: RasterInfo, classes: Classes, longest: int = LONGEST_SIDE) -> None:
        self.classes = classes
        self.step = max(1, math.ceil(max(info.height, info.width) / longest))
        self.bands = list(rgb_bands(info.bands, info.band_names))
        shape = (math.ceil(info.height / self.step), math.ceil(info.width / self.step))
        # `preview` shows 8-bit images of three bands as they are; a choice of three among more is stretched.
        dtype = np.int16 if info.dtype == "uint8" and info.bands != 3 else info.dtype
        self.image = np.zeros((len(self.bands), *shape), dtype)
        self.valid = np.zeros(shape, bool)
        count = classes.num_classes
        self.class_map = np.full(
            map_shape(count, shape, classes.task), no_data_value(count), class_dtype(count)
        )

    @property
    def nbytes(self) -> int:
        """Memory that the picture takes while it is gathered and drawn."""
        pixels = self.valid.size
        return self.image.nbytes + self.class_map.nbytes + pixels * (1 + 3 * 2 + 4 * 4)

    def _rows(self, top: int, count: int) -> tuple[slice, slice]:
        """Return (rows of the picture, rows of the piece) that the piece [top, top + count) brings."""
        first = math.ceil(top / self.step)
        return slice(first, math.ceil((top + count) / self.step)), slice(
            first * self.step - top, None, self.step
        )

    def add_image(self, window: Window, image: np.ndarray, valid: np.ndarray) -> None:
        """Add full-width rows of the scene."""
        here, there = self._rows(window.top, window.height)
        self.image[:, here] = image[:, there, :: self.step][self.bands]
        self.valid[here] = valid[there, :: self.step]

    def add_classes(self, top: int, class_map: np.ndarray) -> None:
        """Add full-width rows of the class map."""
        here, there = self._rows(top, class_map.shape[-2])
        self.class_map[..., here, :] = class_map[..., there, :: self.step]

    def piece(self, top: int, count: int) -> dict[str, np.ndarray]:
        """Return copies of what full-width rows of the scene brought, for `add_piece` of another one."""
        here, _ = self._rows(top, count)
        return {"image": self.image[:, here].copy(), "valid": self.valid[here].copy()}

    def add_piece(self, top: int, count: int, piece: Mapping[str, np.ndarray]) -> None:
        """Take over full-width rows of the scene from a look that has seen them."""
        here, _ = self._rows(top, count)
        self.image[:, here], self.valid[here] = piece["image"], piece["valid"]

    def draw(self) -> np.ndarray:
        """Return the overlay, uint8 (h, w, 3)."""
        return draw_overlay(preview(self.image, self.valid), self.class_map, self.classes)
