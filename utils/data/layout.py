"""A data set on disk: everything about it is read and checked before training starts."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from nets.errors import UserError
from utils.data.class_table import LabelScan, build_classes, check_values
from utils.data.labels import IGNORE, Classes, ClassesFile, read_classes_json
from utils.data.listing import Entry, read_layout
from utils.data.raster import (
    RasterInfo,
    Window,
    label_info,
    raster_info,
    read_image,
    read_label,
    read_palette,
)

__all__ = ["DatasetInfo", "Sample", "in_threads", "read_layout", "scan_dataset"]

_STRIP_PIXELS = 2**24
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """One image with its label (None where there is none), and their common size in pixels.

    `class_counts` holds (class id, pixels) of the classes that the label shows.
    """

    name: str
    image: Path
    label: Path | None
    height: int
    width: int
    class_counts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that was checked.

    Attributes:
        root: Its folder.
        splits: The samples of each split, in the order of its list.
        classes: Names, colours and the meaning of label values.
        bands: Bands of every image.
        band_names: From the first image, else from `classes.json`, else band_1, band_2, ...
        dtype: numpy dtype that holds the values of every image.
        has_crs: All images of the first split carry a coordinate reference system.
        notices: Sentences that the user should read.
        label_counts: Pixels of each class (K), per split.
    """

    root: Path
    splits: dict[str, tuple[Sample, ...]]
    classes: Classes
    bands: int
    band_names: tuple[str, ...]
    dtype: str
    has_crs: bool
    notices: tuple[str, ...] = ()
    label_counts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def smallest_tile(self) -> tuple[int, int]:
        """Smallest height and smallest width in the first split: the largest crop that every image fills."""
        samples = next(iter(self.splits.values()))
        return min(sample.height for sample in samples), min(sample.width for sample in samples)


def scan_dataset(
    root: Path | str,
    *,
    num_classes: int | None = None,
    bands: int | None = None,
    splits: Sequence[str] | None = None,
    classes: Classes | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetInfo:
    """Read every list, image header and label of a data set once, and check that they fit together.

    Args:
        root: Folder with annotations/, images/, labels/ and perhaps classes.json.
        num_classes: Number of classes asked for; None takes what the data say.
        bands: Number of bands asked for; None takes what the data say.
        splits: Lists to read; by default train and val, and test where it exists.
        classes: Classes of a checkpoint, which the labels then must fit; None finds them in the data.
        workers: Threads that read; None takes the processors, at most eight.
        progress: Show a bar.

    Raises:
        UserError: The first thing that is wrong, with the file it is wrong in.
    """
    root = Path(root)
    layout = read_layout(root, splits)
    classes_path = root / "classes.json"
    file = read_classes_json(classes_path) if classes is None and classes_path.is_file() else None
    entries = [entry for group in layout.values() for entry in group]
    found = list(in_threads(_inspect, entries, workers, "reading labels" if progress else None))
    images = [image for image, _ in found]
    labels = [label for _, label in found]
    _check_bands(images, bands)
    notices = []
    if classes is None:
        classes, notices = build_classes(file, labels, num_classes, read_palette(entries[0].label))
    check_values(labels, classes)
    return _dataset_info(root, layout, images, labels, classes, file, [*notices, *_notices(layout, images)])


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, title: str | None
) -> Iterator[Result]:
    """Yield function(item) in the items' order, computed by threads; the first failure stops all.

    Args:
        function: Called once per item.
        items: What to work on.
        workers: Threads; None takes the processors, at most eight.
        title: Shown before the bar; None shows no bar.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers or min(8, os.cpu_count() or 1))) as pool:
        results = pool.map(function, items)
        try:
            yield from tqdm(results, title, total=len(items), disable=title is None, leave=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _inspect(entry: Entry) -> tuple[RasterInfo, LabelScan]:
    """Read an image's header and last row (a truncated file fails there), and its whole label."""
    image = raster_info(entry.image)
    read_image(entry.image, Window(image.height - 1, 0, 1, image.width))
    header = label_info(entry.label)
    if (header.height, header.width) != (image.height, image.width):
        raise UserError(_size_message(image, header))
    whole = header.nodata is not None and float(header.nodata).is_integer()
    nodata = int(header.nodata) if whole else None
    counts: dict[int, int] = {}
    hidden = 0
    for window in _strips(header.height, header.width):
        label, valid = read_label(entry.label, window)
        for value, count in _value_counts(label[valid]):
            counts[value] = counts.get(value, 0) + count
        if nodata is not None and not valid.all():
            hidden += int(np.count_nonzero(label[~valid] == nodata))
    return image, LabelScan(entry.label, header.height, header.width, counts, nodata, hidden)


def _strips(height: int, width: int) -> Iterable[Window]:
    rows = max(1, _STRIP_PIXELS // width)
    return (Window(top, 0, min(rows, height - top), width) for top in range(0, height, rows))


def _value_counts(values: np.ndarray) -> list[tuple[int, int]]:
    """Return (value, count) pairs; counting beats sorting where the values lie close together."""
    if not values.size:
        return []
    first, last = int(values.min()), int(values.max())
    if last - first > 2**16:
        numbers, counts = np.unique(values, return_counts=True)
    else:
        counts = np.bincount((values.astype(np.int64) - first).ravel())
        numbers = np.flatnonzero(counts) + first
        counts = counts[counts > 0]
    return list(zip(numbers.tolist(), counts.tolist(), strict=True))


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


def _check_bands(images: Sequence[RasterInfo], bands: int | None) -> None:
    first = images[0]
    for image in images:
        if image.bands != first.bands:
            raise UserError(
                f"{image.path} has {image.bands} bands, {first.path} has {first.bands}; "
                "all images of a data set have the same bands"
            )
    if bands is not None and bands != first.bands:
        alpha = " besides its alpha band, which is read as a mask" if first.has_alpha else ""
        raise UserError(
            f"{bands} bands were asked for, {first.path} has {first.bands}{alpha}; "
            f"give --BANDS {first.bands} or leave it out"
        )


def _notices(layout: dict[str, list[Entry]], images: Sequence[RasterInfo]) -> list[str]:
    notices = []
    for one, other in combinations(layout, 2):
        shared = {entry.image for entry in layout[one]} & {entry.image for entry in layout[other]}
        if shared:
            notices.append(f"{len(shared)} images are in both {one} and {other}: the scores will be too good")
    if any(image.has_alpha for image in images):
        notices.append("an alpha band is read as the mask of valid pixels, not as a band")
    dtypes = sorted({image.dtype for image in images})
    if len(dtypes) > 1:
        notices.append(f"images have different dtypes ({', '.join(dtypes)}): check that they share one scale")
    if len({image.band_names for image in images}) > 1:
        notices.append("images name their bands differently: check that the order is the same")
    return notices


def _dataset_info(
    root: Path,
    layout: dict[str, list[Entry]],
    images: Sequence[RasterInfo],
    labels: Sequence[LabelScan],
    classes: Classes,
    file: ClassesFile | None,
    notices: Sequence[str],
) -> DatasetInfo:
    splits, counts = {}, {}
    start = 0
    for split, entries in layout.items():
        part = slice(start, start + len(entries))
        start += len(entries)
        splits[split] = tuple(
            Sample(entry.name, entry.image, entry.label, image.height, image.width, _seen(label, classes))
            for entry, image, label in zip(entries, images[part], labels[part], strict=True)
        )
        counts[split] = _class_counts(labels[part], classes)
        if not counts[split].any():
            raise UserError(
                f"{root / 'annotations' / split}.txt: every label pixel is ignored; "
                f"allowed values are {classes.allowed}"
            )
    first = images[: len(next(iter(layout.values())))]
    return DatasetInfo(
        root=root,
        splits=splits,
        classes=classes,
        bands=images[0].bands,
        band_names=_band_names(images[0], file),
        dtype=np.result_type(*{image.dtype for image in images}).name,
        has_crs=all(image.crs is not None for image in first),
        notices=tuple(notices),
        label_counts=counts,
    )


def _class_counts(labels: Sequence[LabelScan], classes: Classes) -> np.ndarray:
    counts = np.zeros(classes.num_classes, dtype=np.int64)
    for label in labels:
        for value, count in label.values(classes).items():
            class_id = classes.table.get(value, IGNORE)
            if class_id != IGNORE:
                counts[class_id] += count
    return counts


def _seen(label: LabelScan, classes: Classes) -> tuple[tuple[int, int], ...]:
    counts = _class_counts([label], classes)
    return tuple((int(class_id), int(counts[class_id])) for class_id in np.flatnonzero(counts))


def _band_names(image: RasterInfo, file: ClassesFile | None) -> tuple[str, ...]:
    listed = file.bands if file and file.bands and len(file.bands) == image.bands else None
    return tuple(
        name or (listed[index] if listed else f"band_{index + 1}")
        for index, name in enumerate(image.band_names)
    )
