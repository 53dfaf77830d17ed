"""One look at every pixel of an image, block by block."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.findings import blamed
from utils.data.raster import RasterInfo, Window
from utils.data.raster_reader import ImageReader
from utils.data.source import source_of

# Rows and columns of a block: whole tiles of the usual sizes, and few enough rows of a PNG to stay in memory.
_BLOCK = (1024, 4096)


class PixelScan(NamedTuple):
    """What the pixels of one image say.

    Attributes:
        path: The file.
        pixels: Pixels in all.
        valid: Pixels that are neither no-data nor NaN nor infinite.
        broken: Pixels with NaN or infinity in a band.
        minimum: Smallest valid value per band; empty where no pixel is valid.
        maximum: Largest valid value per band; empty where no pixel is valid.
        digest: The same for images of the same values, however their files are compressed.
    """

    path: Path | str
    pixels: int
    valid: int
    broken: int
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    digest: str

    @property
    def constant(self) -> bool:
        """Whether no band varies."""
        return self.valid > 0 and self.minimum == self.maximum


def scan_pixels(image: RasterInfo, step: Callable[[int], object] | None = None) -> PixelScan:
    """Read an image from the first to the last pixel.

    Args:
        image: Its header.
        step: Called with the number of pixels after each block.

    Raises:
        FileError: The file is damaged somewhere.
    """
    shape = f"{image.dtype} {image.bands} {image.height} {image.width}"
    digest = hashlib.blake2b(shape.encode(), digest_size=16)
    valid_pixels = broken = 0
    lows, highs = [], []
    with blamed("unreadable image", image.path), ImageReader(source_of(image)) as reader:
        for window in _blocks(image):
            block, valid = reader.read(window)
            digest.update(np.ascontiguousarray(block).data)
            if block.dtype.kind == "f":
                broken += int(np.count_nonzero(~np.isfinite(block).all(axis=0)))
            count = int(np.count_nonzero(valid))
            valid_pixels += count
            if count:
                values = block.reshape(len(block), -1) if count == valid.size else block[:, valid]
                lows.append(values.min(axis=1))
                highs.append(values.max(axis=1))
            if step is not None:
                step(window.height * window.width)
    return PixelScan(
        path=image.path,
        pixels=image.height * image.width,
        valid=valid_pixels,
        broken=broken,
        minimum=tuple(np.min(lows, axis=0).tolist()) if lows else (),
        maximum=tuple(np.max(highs, axis=0).tolist()) if highs else (),
        digest=digest.hexdigest(),
    )


def _blocks(image: RasterInfo) -> Iterator[Window]:
    for top in range(0, image.height, _BLOCK[0]):
        for left in range(0, image.width, _BLOCK[1]):
            height, width = min(_BLOCK[0], image.height - top), min(_BLOCK[1], image.width - left)
            yield Window(top, left, height, width)
