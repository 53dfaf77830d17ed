"""What an image is read from: bands of one file, or of several files stacked behind each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Bands of one file.

    Attributes:
        path: The file; text where it is one of GDAL's virtual paths.
        bands: The bands to read, from 0 on; None reads all.
        places: Where each of them stands in the image, from 0 on; None leaves them as they are.
    """

    path: Path | str
    bands: tuple[int, ...] | None = None
    places: tuple[int, ...] | None = None


# The files of one image.
Source = tuple[Piece, ...]


def stacked(files: Sequence[tuple[Path | str, int]]) -> Source:
    """Return all bands of files (path, number of bands), one behind the other."""
    pieces, first = [], 0
    for path, count in files:
        pieces.append(Piece(path, None, tuple(range(first, first + count))))
        first += count
    return tuple(pieces)


def selected(source: Source, order: Sequence[int]) -> Source:
    """Return these bands of what `stacked` gave, in this order; files of which none is left are not read."""
    pieces = []
    for piece in source:
        mine = [(place, piece.places.index(band)) for place, band in enumerate(order) if band in piece.places]
        if mine:
            places, bands = zip(*mine, strict=True)
            pieces.append(Piece(piece.path, bands, places))
    return tuple(pieces)


def join(source: Source, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the image (C, h, w), and `valid` (h, w) where every file is valid, from what was read of each.

    The dtype is the smallest that holds the values of all.
    """
    if len(parts) == 1:
        return parts[0]
    bands = sum(len(image) for image, _ in parts)
    joined = np.empty((bands, *parts[0][1].shape), np.result_type(*(image.dtype for image, _ in parts)))
    for piece, (image, _) in zip(source, parts, strict=True):
        joined[list(piece.places)] = image
    return joined, np.logical_and.reduce([valid for _, valid in parts])
