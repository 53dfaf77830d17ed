"""Plain PNG and JPEG files, decoded by Pillow: several times as fast as through GDAL.

GDAL decodes such a file from the top to the last row of a window, its opening alone takes longer than a small
picture's decoding, and the JPEG library in rasterio's wheels is the IJG's, without vector instructions.
Pillow has libjpeg-turbo, as OpenCV and torchvision have: an image is here what it is there. The values that
the two libraries find in a JPEG differ by a few levels where colours change sharply; a PNG's are the same.
A JPEG is decoded down to the window's last row.

Whatever is not plain is left to GDAL: other numbers than bytes, transparency, masks and files beside the
picture that GDAL heeds, a JPEG or PNG whose end is missing, and all that is large.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from utils.data.jpeg_header import without_rows_below
from utils.data.window import Window, checked, slices

# Larger pictures are read by window: a decoded one takes 96 MiB at most.
MOST_PIXELS = 2**25
# GDAL decodes the whole of a larger PNG by libdeflate, in half of the time; below, its opening costs more.
_SMALL = 2**18
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"
_PNG_HEADER = 33  # bytes
_GREY, _RGB, _PALETTE = 0, 2, 3
# What GDAL reads beside a picture: no-data values and colours, masks.
_BESIDE = (".aux.xml", ".msk")


def read_picture(
    path: Path | str, window: Window | None = None, *, indices: bool = False
) -> np.ndarray | None:
    """Return a plain picture, or a window of it, as bytes (C, h, w); None where GDAL must read.

    Nothing is raised for a missing or damaged file: GDAL's words are the better ones. The bands of a pixel
    stand together in memory.

    Args:
        path: Any source.
        window: The part to cut out after decoding.
        indices: A palette PNG gives its indices (1, h, w); otherwise it is left to GDAL.
    """
    if isinstance(path, str):
        return None
    suffix = path.suffix.lower()
    try:
        if suffix == ".png":
            data = _plain_png(str(path), indices)
        elif suffix in (".jpg", ".jpeg"):
            data = _plain_jpeg(str(path))
        else:
            return None
        return None if data is None else _decoded(data, window)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _decoded(data: bytes, window: Window | None) -> np.ndarray | None:
    if window is not None and data.startswith(_JPEG_START):
        data = without_rows_below(data, window.top + window.height, MOST_PIXELS)
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        size = image.height, image.width
        if image.mode not in ("L", "RGB", "P") or size[0] * size[1] > MOST_PIXELS:
            return None
        window = checked(window, size)
        if size[0] * size[1] > _SMALL:
            top, left, height, width = window
            image = image.crop((left, top, left + width, top + height))
            window = Window(0, 0, height, width)
        picture = np.array(image)
    picture = picture[slices(window)]
    return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)


def _plain_jpeg(name: str) -> bytes | None:
    with open(name, "rb") as file:
        data = file.read()
    # GDAL's own masks stand behind the end; a truncated file has none.
    plain = data.startswith(_JPEG_START) and data.endswith(_JPEG_END)
    return data if plain and not _has_company(name) else None


def _plain_png(name: str, indices: bool) -> bytes | None:
    with open(name, "rb") as file:
        data = file.read(_PNG_HEADER)
        if len(data) < _PNG_HEADER or not data.startswith(_PNG_START):
            return None
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        depth, kind = data[24], data[25]
        allowed = (_GREY, _RGB, _PALETTE) if indices else (_GREY, _RGB)
        if width * height > _SMALL or depth != 8 or kind not in allowed:
            return None
        data += file.read()
    plain = data.endswith(_PNG_END) and b"tRNS" not in data[: data.find(b"IDAT")]
    return data if plain and not _has_company(name) else None


def _has_company(name: str) -> bool:
    return os.path.exists(name + _BESIDE[0]) or os.path.exists(name + _BESIDE[1])
