"""Labels of several classes at once: every band of the raster is a class, present (1) or absent (0)."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nets.errors import UserError
from utils.data.classes_file import ClassesFile
from utils.data.findings import FileError
from utils.data.label_map import Rule
from utils.data.labels import DEFAULT_IGNORED, KINDS, Classes, plain_classes, whole_numbers
from utils.data.open_files import kept_open
from utils.data.raster import RasterInfo, Window, raster_info
from utils.data.raster_files import is_npy, native, open_npy, open_raster, require_lossless
from utils.data.raster_masks import class_bands, valid_bands
from utils.data.window import checked, rasterio_window, slices

if TYPE_CHECKING:
    from utils.data.class_table import LabelScan

_NUMBERS = "a band holds 1 where its class is present, 0 where it is absent, and 255 where that is not known"


def read_band_label(
    path: Path | str, window: Window | None = None, class_values: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Read a label whose bands are classes, or a window of it.

    Args:
        path: TIFF (bands or pages), NPY or PNG.
        window: The part to read; all of it by default.
        class_values: Values with a meaning. A pixel with the file's no-data value is valid all the same where
            that value is among them.

    Returns:
        The label (K, H, W) of integers, and `valid` (K, H, W) by the file's masks, which may differ from band
        to band; NaN in a float label is invalid.

    Raises:
        UserError: Unreadable file, JPEG, or numbers that are not whole.
    """
    path = Path(path)
    nodata = None
    if is_npy(path):
        array = open_npy(path)
        rows, columns = slices(checked(window, array.shape[1:]))
        label = np.array(array[:, rows, columns], dtype=native(array.dtype), order="C")
        valid = np.ones(label.shape, dtype=bool)
    else:
        with kept_open(path) as pages:
            require_lossless(path, pages[0])
            part = rasterio_window(checked(window, pages[0].shape))
            label = np.concatenate([page.read(class_bands(page), window=part) for page in pages])
            valid = np.concatenate([valid_bands(page, part) for page in pages])
            nodata = pages[0].nodata
    if label.dtype.kind == "f":
        label, valid = whole_numbers(path, label, valid)
    if nodata is not None and nodata in class_values:
        valid |= label == int(nodata)
    return label, valid


def band_label_info(path: Path | str) -> RasterInfo:
    """Read the header of a label whose bands are classes; the bands' names are the classes'."""
    info = raster_info(path)
    if is_npy(info.path):
        return info
    with open_raster(info.path) as pages:
        names = tuple(page.descriptions[band - 1] for page in pages for band in class_bands(page))
    return replace(info, bands=len(names), band_names=names)


def band_classes(
    file: ClassesFile | None, scans: Sequence["LabelScan"], num_classes: int | None, rules: Sequence[Rule]
) -> tuple[Classes, list[str]]:
    """Return the classes that the bands of the labels are, and notices.

    Args:
        file: Contents of `classes.json`, None where there is none.
        scans: All label files, which have equally many bands.
        num_classes: What the user asks for.
        rules: `--LABEL_MAP`: which values mean present (1), absent (0) and ignored.

    Raises:
        UserError: Flag or file say another number of classes than there are bands, or a rule names a class.
    """
    known, count = file or ClassesFile(), len(scans[0].names)
    for said, where in ((num_classes, f"--NUM_CLASS {num_classes}"), (known.num_classes, "classes.json")):
        if said not in (None, count):
            bands = "band" if count == 1 else "bands"
            raise UserError(
                f"{where} says {said} classes, the labels have {count} {bands} ({scans[0].path}); "
                "with --TASK multilabel every band is a class: make them agree"
            )
    described = scans[0].names if len({*scans[0].names, None}) == count + 1 else None
    classes = plain_classes(count, known.ignored, known.names or described, known.palette, None)
    table = {value: value for value in (0, 1) if value not in known.ignored}
    classes = replace(classes, table=table, kind=KINDS[3])
    if rules:
        return with_rules(classes, rules), []
    if {value for scan in scans for value in scan.counts} == {0, 255} and known.ignored == DEFAULT_IGNORED:
        notice = "labels hold exactly 0 and 255: 255 is read as present"
        return replace(classes, table={0: 0, 255: 1}, ignored=(-1,)), [notice]
    return classes, []


def with_rules(classes: Classes, rules: Sequence[Rule]) -> Classes:
    """Return the classes with the values' meaning of `--LABEL_MAP`.

    Raises:
        UserError: A rule is not about 0, 1 and ignored.
    """
    targets = {rule.value: rule.target for rule in rules}
    if None in targets or any(rule.is_color or rule.target not in (None, 0, 1) for rule in rules):
        raise UserError(
            '--LABEL_MAP with --TASK multilabel says which values mean present, as in "2=1,0=0,9=ignore": '
            "1 is present, 0 absent; the classes are the bands"
        )
    table = {value: meant for value, meant in classes.table.items() if value not in targets}
    table |= {value: target for value, target in targets.items() if target is not None}
    ignored = [value for value in classes.ignored if value not in targets]
    ignored += [value for value, target in targets.items() if target is None]
    return replace(classes, table=table, ignored=tuple(ignored))


def value_mistake(scan: "LabelScan", value: int, pixels: int, allowed: str, detail: str) -> FileError:
    """Return the mistake of a label that holds a value without a meaning."""
    text = (
        f"{scan.path} holds the value {value} {pixels} times; allowed are {allowed}: {_NUMBERS}; mend the "
        "label, say in --LABEL_MAP what the value means, or leave out --TASK multilabel where the values are "
        "class numbers or colours"
    )
    return FileError(text, "label value", scan.path, f"{detail}; allowed are {allowed}")
