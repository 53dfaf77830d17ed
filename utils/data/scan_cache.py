"""What was found in the labels of a data set, kept so that the next run need not read them all again."""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.cells import Cells
from utils.data.class_table import LabelScan
from utils.data.layouts.base import Entry
from utils.files import replacing

FOLDER = "PURESEG_CACHE"


class ScanCache:
    """A file of label scans; each counts as long as its image, its label and their like are unchanged.

    It lies in the folder that the environment variable PURESEG_CACHE names, else in ~/.cache/pureseg. A cache
    that cannot be read or written is none: it only saves time.

    Args:
        root: The data set.
    """

    def __init__(self, root: Path) -> None:
        folder = os.environ.get(FOLDER) or Path.home() / ".cache" / "pureseg"
        name = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
        self.path = Path(folder, f"labels-{name}.json")
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = None
        self._kept: dict[str, dict] = kept if isinstance(kept, dict) else {}

    def find(self, entry: Entry, how: Sequence[object]) -> LabelScan | None:
        """Return the scan of a label, read in the same way, or None.

        Args:
            entry: The files.
            how: Plain values that decide the result of reading it.
        """
        kept = self._kept.get(_key(entry, how))
        try:
            if kept is None or kept["files"] != _identities(entry):
                return None
            return _scan(entry, kept)
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return None

    def add(self, entry: Entry, how: Sequence[object], scan: LabelScan) -> None:
        """Note a scan."""
        self._kept[_key(entry, how)] = {"files": _identities(entry), **_plain(scan)}

    def save(self) -> None:
        """Write the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part:
                part.write_text(json.dumps(self._kept), encoding="utf-8")
        except OSError:
            pass


def _key(entry: Entry, how: Sequence[object]) -> str:
    return "|".join(map(str, (entry.image.absolute(), entry.label.absolute(), *how)))


def _identities(entry: Entry) -> list[list]:
    """Return path, size and time of change of every file."""
    files = [entry.image, entry.label, *(path for path, _ in entry.extra)]
    statuses = [path.stat() for path in files]
    return [
        [str(path.absolute()), status.st_size, status.st_mtime_ns]
        for path, status in zip(files, statuses, strict=True)
    ]


def _plain(scan: LabelScan) -> dict:
    cells = None
    if scan.cells is not None:
        cells = {
            "side": scan.cells.side,
            "shape": list(scan.cells.shape),
            "counts": [[value, _packed(array)] for value, array in scan.cells.counts.items()],
            "hidden": _packed(scan.cells.hidden),
        }
    return {
        "size": [scan.height, scan.width],
        "counts": list(scan.counts.items()),
        "nodata": [scan.nodata, scan.nodata_pixels],
        "by_color": scan.by_color,
        "cells": cells,
        "names": list(scan.names),
        "bands": [_plain(band) for band in scan.bands],
    }


def _scan(entry: Entry, kept: dict) -> LabelScan:
    cells = None
    if kept["cells"] is not None:
        shape = tuple(kept["cells"]["shape"])
        cells = Cells(kept["cells"]["side"], *shape)
        cells.counts = {value: _unpacked(text, shape) for value, text in kept["cells"]["counts"]}
        cells.hidden = _unpacked(kept["cells"]["hidden"], shape)
    more = {"names": tuple(kept["names"]), "bands": tuple(_scan(entry, band) for band in kept["bands"])}
    counts = dict(kept["counts"])
    return LabelScan(entry.label, *kept["size"], counts, *kept["nodata"], kept["by_color"], cells, **more)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.astype("<i4").tobytes())).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4").reshape(shape).copy()
