"""Reading of every label once: which values it holds, how often, and in a scene where."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from utils.data.cells import Cells
from utils.data.class_table import LabelScan
from utils.data.findings import FileError, blamed
from utils.data.labels import saturate
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo, Window, label_info, raster_info, read_image, read_label
from utils.data.samples import LARGE

_STRIP_PIXELS = 2**24
_LEAST_CELL = 32  # pixels a side
_MOST_CELLS = 2**16
# A scene's label with more values than these is no label.
_MOST_VALUES = 1024
# Image and label are taken for shifted where a corner is further off than this, pixels.
_MOST_SHIFT = 0.5


def inspect(entry: Entry, saturated: bool = False, cells: bool = False) -> tuple[RasterInfo, LabelScan]:
    """Read an image's header and last row (a truncated file fails there), and its whole label.

    Args:
        entry: The two files.
        saturated: The channels of colour labels are rounded to 0 or 255.
        cells: Counts each cell of the label by itself; a scene's always are.

    Raises:
        FileError: A file cannot be read, or label and image do not cover the same pixels.
    """
    with blamed("unreadable image", entry.image):
        image = raster_info(entry.image)
        read_image(entry.image, Window(image.height - 1, 0, 1, image.width))
    with blamed("unreadable label", entry.label):
        return image, _inspect_label(entry, image, saturated, cells)


def _inspect_label(entry: Entry, image: RasterInfo, saturated: bool, cells: bool) -> LabelScan:
    header = label_info(entry.label)
    if (header.height, header.width) != (image.height, image.width):
        sizes = f"{header.height} x {header.width}, its image {image.height} x {image.width}"
        raise FileError(_size_message(image, header), "label size", entry.label, sizes)
    _check_place(image, header)
    whole = header.nodata is not None and float(header.nodata).is_integer()
    nodata = int(header.nodata) if whole else None
    size = (header.height, header.width)
    scene = cells or header.height * header.width > LARGE
    side = cell_side(*size) if scene else 0
    grid = Cells(side, *(-(-length // side) for length in size)) if scene else None
    counts, hidden = _count(entry.label, size, nodata, saturated and header.bands == 3, grid)
    return LabelScan(entry.label, *size, counts, nodata, hidden, header.bands == 3, grid)


def _count(
    path: Path, size: tuple[int, int], nodata: int | None, saturated: bool, grid: Cells | None
) -> tuple[dict[int, int], int]:
    """Return value -> valid pixels, and the pixels that are invalid and hold the no-data value."""
    counts: dict[int, int] = {}
    hidden = 0
    for window in _strips(*size, grid.side if grid else 1):
        label, valid = read_label(path, window)
        label = saturate(label) if saturated else label
        values = value_counts(label[valid])
        for value, count in values:
            counts[value] = counts.get(value, 0) + count
        gone = ~valid & (label == nodata) if nodata is not None and not valid.all() else None
        hidden += 0 if gone is None else int(np.count_nonzero(gone))
        if grid is not None:
            _require_label(path, len(counts))
            grid.add(window.top, label, valid, [value for value, _ in values], gone)
    return counts, hidden


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


def _check_place(image: RasterInfo, label: RasterInfo) -> None:
    """Raise a FileError where both files say where they lie on the map and contradict each other."""
    if image.crs and label.crs and CRS.from_wkt(image.crs) != CRS.from_wkt(label.crs):
        one, two = (crs_name(info.crs) for info in (label, image))
        text = f"{label.path} is in {one}, its image {image.path} in {two}; warp the label to that"
        raise FileError(text, "label place", label.path, f"in {one}, its image in {two}")
    if image.transform is None or label.transform is None:
        return
    to_map, from_map = (np.reshape(info.transform, (3, 3)) for info in (label, image))
    corners = np.array([(x, y, 1) for x in (0, label.width) for y in (0, label.height)]).T
    shift = float(np.abs(np.linalg.solve(from_map, to_map @ corners) - corners).max())
    if shift > _MOST_SHIFT:
        raise FileError(
            f"{label.path} lies up to {shift:.4g} pixels beside its image {image.path} on the map "
            "(other origin or pixel size); cut both to one grid",
            "label place",
            label.path,
            f"up to {shift:.4g} pixels beside",
        )


def crs_name(wkt: str) -> str:
    """Return the number or the name of a coordinate reference system."""
    crs = CRS.from_wkt(wkt)
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else wkt.split('"')[1]


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
