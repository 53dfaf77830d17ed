"""Looking at all images and labels of a data set before it is used: every header, and the labels' values.

All labels are read where what they hold decides which classes there are. Where that is known, and there are
very many, only some are: the values of the others are checked whenever they are read.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.class_table import LabelScan
from utils.data.label_scan import inspect
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo
from utils.data.samples import LARGE
from utils.data.scan_cache import ScanCache
from utils.data.source import source_info
from utils.data.threads import in_threads

# Fewer labels are all read: no more than LARGE pixels each, that takes a minute or so at the worst.
MANY = 1000
# Pixels of labels that are all read, and of more labels those that are drawn.
MOST_PIXELS = 2**31
DRAWN_PIXELS = 2**29
_LEAST_DRAWN = 16  # of each split
# A scan that took fewer seconds is not worth keeping.
WORTH_SECONDS = 2.0


class How(NamedTuple):
    """How labels are looked at.

    Attributes:
        saturated: The channels of colour labels are rounded to 0 or 255.
        cells: Each cell of the label is counted by itself.
        some: Not all labels need be read.
        seed: Start of the choice of those that are.
        bands: The bands of the labels are classes.
    """

    saturated: bool
    cells: bool
    some: bool = False
    seed: int = 0
    bands: bool = False


class Looking:
    """Looks at an image and its label, from several threads; `finish` keeps what was found.

    Args:
        root: The data set, whose earlier scan may still hold.
        groups: The files of each split.
        how: What is looked at.
        workers: Threads that read headers, where not all labels are read.
        progress: Show a bar for that.
    """

    def __init__(
        self,
        root: Path,
        groups: dict[str, list[Entry]],
        how: How,
        workers: int | None = None,
        *,
        progress: bool = True,
    ) -> None:
        entries = [entry for group in groups.values() for entry in group]
        sizes = _sizes(entries, workers, progress) if how.some and len(entries) > MANY else []
        wanted = _draw(groups, sizes, how.seed) if sum(sizes) > MOST_PIXELS else range(len(entries))
        self.how = (how.saturated, how.cells, how.bands)
        self.notices: list[str] = []
        self._wanted = {entries[number] for number in wanted}
        self._new: list[tuple[Entry, LabelScan]] = []
        self._cache, self._started = ScanCache(root), time.monotonic()
        if len(wanted) < len(entries):
            share = sum(sizes[number] for number in wanted) / sum(sizes)
            self.notices.append(
                f"of {len(entries):,} labels {len(wanted):,} drawn at random were read ({100 * share:.2g} % "
                "of the pixels): class shares are estimated from these; the values of the others are checked "
                "whenever they are read, their sizes and places were checked now"
            )

    def __call__(self, entry: Entry) -> tuple[RasterInfo, LabelScan]:
        """Return header and label of an entry.

        Raises:
            FileError: A file cannot be read, or label and image do not cover the same pixels.
        """
        kept = self._cache.find(entry, self.how)
        if kept is not None:
            return source_info(entry.image, [path for path, _ in entry.extra]), kept
        read = entry in self._wanted
        image, scan = inspect(entry, *self.how, read=read)
        if read:
            self._new.append((entry, scan))
        return image, scan

    def finish(self) -> None:
        """Keep the scans, if they took long enough to be worth it."""
        if self._new and time.monotonic() - self._started > WORTH_SECONDS:
            for entry, scan in self._new:
                self._cache.add(entry, self.how, scan)
            self._cache.save()


def _sizes(entries: Sequence[Entry], workers: int | None, progress: bool) -> list[int]:
    title = "reading headers" if progress else None
    return list(in_threads(_pixels, [entry.image for entry in entries], workers, title))


def _pixels(path: Path) -> int:
    info = source_info(path)
    return info.height * info.width


def _draw(groups: dict[str, list[Entry]], sizes: Sequence[int], seed: int) -> list[int]:
    """Return the places of the labels that are read: some of each split, and all of those of scenes."""
    rng, first, drawn = np.random.default_rng(seed), 0, []
    share = DRAWN_PIXELS / sum(sizes)
    for entries in groups.values():
        count = min(len(entries), max(_LEAST_DRAWN, int(share * len(entries))))
        drawn += (first + rng.permutation(len(entries))[:count]).tolist()
        first += len(entries)
    return sorted({*drawn, *(number for number, size in enumerate(sizes) if size > LARGE)})
