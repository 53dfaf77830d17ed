"""Rectangles of pixels."""

from typing import NamedTuple

from rasterio.windows import Window as RasterioWindow

# An image of more pixels is a scene: it gives an epoch several windows, and it is measured in blocks.
LARGE = 2048 * 2048


class Window(NamedTuple):
    """A rectangle of pixels: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


def checked(window: Window | None, size: tuple[int, int]) -> Window:
    """Return a window of a raster of these rows and columns, all of it by default.

    Raises:
        ValueError: It reaches beyond the raster.
    """
    height, width = size
    if window is None:
        return Window(0, 0, height, width)
    if not (0 <= window.top <= height - window.height and 0 <= window.left <= width - window.width):
        raise ValueError(f"{window} does not lie inside a raster of {height} x {width} pixels")
    return window


def slices(window: Window) -> tuple[slice, slice]:
    """Return the rows and columns of a window as indices of an array."""
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def rasterio_window(window: Window) -> RasterioWindow:
    """Return a window as rasterio writes it."""
    return RasterioWindow(window.left, window.top, window.width, window.height)
