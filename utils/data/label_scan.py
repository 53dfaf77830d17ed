"""Reading of every label once: which values it holds, how often, and in a scene where."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.data.band_labels import band_label_info, read_band_label
from utils.data.cells import Cells
from utils.data.class_table import LabelScan
from utils.data.findings import FileError, blamed
from utils.data.grids import check_same_grid
from utils.data.labels import saturate
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo, Window, check_image, label_info, read_label
from utils.data.samples import LARGE
from utils.data.source import source_info, source_of

_STRIP_PIXELS = 2**24
_LEAST_CELL = 32  # pixels a side
_MOST_CELLS = 2**16
# A scene's label with more values than these is no label.
_MOST_VALUES = 1024


def inspect(
    entry: Entry, saturated: bool = False, cells: bool = False, bands: bool = False, *, read: bool = True
) -> tuple[RasterInfo, LabelScan]:
    """Read an image's header and last row (a truncated file fails there), and its whole label.

    Args:
        entry: The two files.
        saturated: The channels of colour labels are rounded to 0 or 255.
        cells: Counts each cell of the label by itself; a scene's always are.
        bands: The bands of the label are classes.
        read: False reads the headers only; the scan is empty then.

    Raises:
        FileError: A file cannot be read, or label and image do not cover the same pixels.
    """
    with blamed("unreadable image", entry.image):
        image = source_info(entry.image, [path for path, _ in entry.extra])
        if read:
            for piece in source_of(image):
                check_image(piece.path)
    with blamed("unreadable label", entry.label):
        return image, _inspect_label(entry, image, saturated, cells, bands, read)


def _inspect_label(
    entry: Entry, image: RasterInfo, saturated: bool, cells: bool, bands: bool, read: bool
) -> LabelScan:
    header = band_label_info(entry.label) if bands else label_info(entry.label)
    if (header.height, header.width) != (image.height, image.width):
        sizes = f"{header.height} x {header.width}, its image {image.height} x {image.width}"
        raise FileError(_size_message(image, header), "label size", entry.label, sizes)
    check_same_grid(image, header, "the label", "label place")
    whole = header.nodata is not None and float(header.nodata).is_integer()
    nodata = int(header.nodata) if whole else None
    size = (header.height, header.width)
    color, names = header.bands == 3 and not bands, header.band_names if bands else ()
    if not read:
        return LabelScan(entry.label, *size, {}, nodata, 0, color, read=False, names=names)
    scene = cells or header.height * header.width > LARGE
    side = cell_side(*size) if scene else 0
    shape = [-(-length // side) for length in size] if scene else []
    counters = [
        _Counter(entry.label, nodata, Cells(side, *shape) if scene else None) for _ in names or (None,)
    ]
    for window in _strips(*size, side or 1):
        label, valid = (read_band_label if bands else read_label)(entry.label, window)
        label = saturate(label) if saturated and color else label
        planes = (array.reshape(-1, *array.shape[-2:]) for array in (label, valid))
        for counter, *plane in zip(counters, *planes, strict=True):
            counter.add(window.top, *plane)
    scans = [LabelScan(entry.label, *size, c.counts, nodata, c.hidden, color, c.grid) for c in counters]
    return _together(scans, names) if bands else scans[0]


def _together(scans: list[LabelScan], names: tuple[str | None, ...]) -> LabelScan:
    """Return the scan of a label from those of its bands, which are classes."""
    counts: Counter[int] = Counter()
    for scan in scans:
        counts.update(scan.counts)
    hidden = sum(scan.nodata_pixels for scan in scans)
    return replace(scans[0], counts=dict(counts), nodata_pixels=hidden, names=names, bands=tuple(scans))


class _Counter:
    """Counts the values of a label, or of a band of it, strip by strip.

    Args:
        path: The label file.
        nodata: Its no-data value, if it is a whole number.
        grid: Counts each cell by itself.

    Attributes:
        counts: Value -> valid pixels.
        hidden: Pixels that are invalid and hold the no-data value.
    """

    def __init__(self, path: Path, nodata: int | None, grid: Cells | None) -> None:
        self.path, self.nodata, self.grid = path, nodata, grid
        self.counts: dict[int, int] = {}
        self.hidden = 0

    def add(self, top: int, label: np.ndarray, valid: np.ndarray) -> None:
        """Count a strip (h, w) whose first row is `top`."""
        values = value_counts(label[valid])
        for value, count in values:
            self.counts[value] = self.counts.get(value, 0) + count
        gone = ~valid & (label == self.nodata) if self.nodata is not None and not valid.all() else None
        self.hidden += 0 if gone is None else int(np.count_nonzero(gone))
        if self.grid is not None:
            _require_label(self.path, len(self.counts))
            self.grid.add(top, label, valid, [value for value, _ in values], gone)


def cell_side(height: int, width: int) -> int:
    """Return the side of the cells in which a scene's labels are counted: 32 pixels, more in a vast one."""
    side = _LEAST_CELL
    while height * width > _MOST_CELLS * side * side:
        side *= 2
    return side


def value_counts(values: np.ndarray) -> list[tuple[int, int]]:
    """Return (value, count) pairs of a flat array."""
    if not values.size:
        return []
    first, last = int(values.min()), int(values.max())
    if last - first > 2**16:
        # Neighbours are mostly equal: counting runs spares sorting all pixels.
        starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
        lengths = np.diff(np.append(starts, values.size))
        numbers, where = np.unique(values[starts], return_inverse=True)
        counts = np.bincount(where.ravel(), weights=lengths).astype(np.int64)
    else:
        counts = np.bincount((values.astype(np.int64) - first).ravel())
        numbers = np.flatnonzero(counts) + first
        counts = counts[counts > 0]
    return list(zip(numbers.tolist(), counts.tolist(), strict=True))


def _strips(height: int, width: int, side: int) -> Iterable[Window]:
    """Return windows of whole rows of cells."""
    rows = max(1, _STRIP_PIXELS // width // side) * side
    return (Window(top, 0, min(rows, height - top), width) for top in range(0, height, rows))


def _require_label(path: Path, values: int) -> None:
    if values > _MOST_VALUES:
        raise FileError(
            f"{path} holds more than {_MOST_VALUES} different values: it seems to be a picture and no label, "
            "or a label that was smoothed or compressed with losses",
            "label is a picture",
            path,
        )


def _size_message(image: RasterInfo, label: RasterInfo) -> str:
    message = (
        f"{label.path} has {label.height} x {label.width} pixels (rows x columns), "
        f"its image {image.path} has {image.height} x {image.width}"
    )
    if image.path.suffix.lower() == ".npy" and image.bands > 1:
        shape = np.load(image.path, mmap_mode="r", allow_pickle=False).shape
        if (label.height, label.width) in (shape[1:], shape[:2]):
            return (
                f"{message}, because the smaller outer axis of its shape {shape} is taken for the bands; "
                "save the image as a TIFF instead"
            )
    return f"{message}; both must have one size"
