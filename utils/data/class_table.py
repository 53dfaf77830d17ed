"""From the label values of a whole data set to its classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nets.errors import UserError
from utils.data.band_labels import band_classes, value_mistake, with_rules
from utils.data.cells import Cells
from utils.data.classes_file import ClassesFile, file_classes
from utils.data.color_labels import color_classes, nearest_color
from utils.data.findings import FileError, Report, stop, told
from utils.data.label_map import Rule, parse_label_map
from utils.data.labels import (
    DEFAULT_IGNORED,
    Classes,
    Color,
    default_colors,
    palette_colors,
    plain_classes,
    value_text,
)
from utils.data.mapped_classes import base_classes, mapped_classes

# More classes than any published data set has: beyond it a stray value is far likelier than a class.
MOST_CLASSES_GUESSED = 1000
# Values that are shown where classes cannot be told.
_MOST_FREQUENT = 20


@dataclass(frozen=True)
class LabelScan:
    """What one label file holds.

    Attributes:
        path: The file.
        height: Rows.
        width: Columns.
        counts: Value -> valid pixels that hold it.
        nodata: The file's no-data value, None where it has none or it is no whole number.
        nodata_pixels: Pixels that the file's mask hides and that hold the no-data value.
        by_color: The values are packed colours.
        cells: Where the values are, for a scene.
        read: False where only the header was read, and nothing is known of the values.
        names: Of a label whose bands are classes: the bands' names, None where the file has none.
        bands: Of such a label, if it was read: each band by itself; the rest is about all of them together.
    """

    path: Path
    height: int
    width: int
    counts: dict[int, int]
    nodata: int | None = None
    nodata_pixels: int = 0
    by_color: bool = False
    cells: Cells | None = None
    read: bool = True
    names: tuple[str | None, ...] = ()
    bands: tuple["LabelScan", ...] = ()

    def values(self, classes: Classes) -> dict[int, int]:
        """Return value -> pixels; pixels of the no-data value count where that value is a class."""
        counts = dict(self.counts)
        if self.nodata_pixels and self.nodata in classes.table:
            counts[self.nodata] = counts.get(self.nodata, 0) + self.nodata_pixels
        return counts


def build_classes(
    file: ClassesFile | None,
    scans: Sequence[LabelScan],
    num_classes: int | None = None,
    palette: dict[int, Color] | None = None,
    rules: Sequence[Rule] = (),
) -> tuple[Classes, list[str]]:
    """Decide once, over all splits, what every label value means.

    Args:
        file: Contents of `classes.json` or what a known data set says, None where there is neither.
        scans: All label files.
        num_classes: What the user asks for; more than the labels show is allowed.
        palette: Colour table of the label files, used where `file` gives no colours.
        rules: `--LABEL_MAP`; they count more than the file.

    Returns:
        The classes, and notices for the user.

    Raises:
        UserError: `num_classes` contradicts the labels or the file, or a value is no plausible class.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"the number of classes is {num_classes}; it must be at least 1")
    if scans[0].names:
        return band_classes(file, scans, num_classes, rules)
    by_color = _by_color(scans)
    if file is not None and file.saturated and not by_color:
        file = None  # someone has turned the colours into numbers of his own
    if rules:
        known = base_classes(file, by_color, palette)
        return mapped_classes(known, rules, all_values(scans), palette, num_classes or 2), []
    if by_color:
        classes, notices = color_classes(file, all_values(scans), num_classes)
        if classes is not None:
            return classes, notices
        classes, more = build_classes(file, [_grey(scan) for scan in scans], num_classes)
        return _grey_as_color(classes), [*notices, *more]
    if file is None and num_classes in (None, 2) and _seen(scans) == {0, 255}:
        colors = palette_colors(palette, (0, 255)) or default_colors(2)
        notice = "labels hold exactly 0 and 255: read as two classes, 0 -> class_0 and 255 -> class_1"
        return Classes(("class_0", "class_1"), colors, {0: 0, 255: 1}, (-1,)), [notice]
    known = file or ClassesFile()
    if known.num_classes is not None:
        return file_classes(known, num_classes, palette), []
    return _from_labels(known, scans, num_classes, palette)


def classes_or_values(
    file: ClassesFile | None,
    scans: Sequence[LabelScan],
    num_classes: int | None,
    palette: dict[int, Color] | None,
    rules: Sequence[Rule],
    report: Report = stop,
) -> tuple[Classes, list[str]]:
    """Return what `build_classes` does, with every value checked.

    Where classes cannot be told, and `report` lets it pass, the most frequent values stand for them.
    """
    with told(report):
        classes, notices = build_classes(file, scans, num_classes, palette, rules)
        check_values(scans, classes, report)
        return classes, notices
    if scans[0].names:
        return band_classes(None, scans, None, ())
    counts = Counter(all_values(scans))
    values = sorted(value for value, _ in counts.most_common(_MOST_FREQUENT))
    kind = "color" if scans[0].by_color else "number"
    names, rest = tuple(value_text(value, kind) for value in values), tuple(set(counts) - set(values))
    table = {value: index for index, value in enumerate(values)}
    notice = f"classes cannot be told from the labels: the {len(values)} most frequent values stand for them"
    return Classes(names, default_colors(len(values)), table, rest, kind), [notice]


def mapped_onto(
    classes: Classes, label_map: str | None, labels: Sequence[LabelScan], palette: dict[int, Color] | None
) -> Classes:
    """Return a checkpoint's classes for labels of other values, as `--LABEL_MAP` says."""
    if not label_map:
        return classes
    if classes.multilabel:
        return with_rules(classes, parse_label_map(label_map))
    kind = "color" if labels[0].by_color else "number"
    ignored = () if labels[0].by_color else DEFAULT_IGNORED
    known = replace(classes, table={}, ignored=ignored, kind=kind)
    mapped = mapped_classes(
        known, parse_label_map(label_map), all_values(labels), palette, classes.num_classes
    )
    if mapped.num_classes > classes.num_classes:
        raise UserError(
            f"--LABEL_MAP names the class {mapped.names[classes.num_classes]}, the checkpoint has "
            f"{', '.join(classes.names)}; use these"
        )
    return mapped


def check_values(scans: Sequence[LabelScan], classes: Classes, report: Report = stop) -> None:
    """Report every file with a value that is neither a class nor ignored."""
    for scan in scans:
        with told(report):
            _check_values(scan, classes)


def _check_values(scan: LabelScan, classes: Classes) -> None:
    counts = scan.values(classes)
    wrong = {v: n for v, n in counts.items() if v not in classes.table and v not in classes.ignored}
    if not wrong:
        return
    value = max(wrong, key=wrong.__getitem__)
    if scan.by_color != classes.by_color:
        holds, needed = ("colours", "numbers") if scan.by_color else ("numbers", "colours")
        text = f"{scan.path} holds {holds}; the classes at hand are told by {needed}"
        raise FileError(text, "label kinds", scan.path, holds)
    shown = sorted(wrong.items(), key=lambda item: -item[1])[:5]
    detail = ", ".join(f"{classes.text(value)} in {count:,} pixels" for value, count in shown)
    detail += f" and {len(wrong) - 5} more values" if len(wrong) > 5 else ""
    if classes.multilabel:
        raise value_mistake(scan, value, wrong[value], classes.allowed, detail)
    if not scan.by_color:
        text = (
            f"{scan.path} holds the label value {value} in {wrong[value]} pixels; allowed are "
            f"{classes.allowed}; mend the label, or say in classes.json or --LABEL_MAP what it means"
        )
        raise FileError(text, "label value", scan.path, f"{detail}; allowed are {classes.allowed}")
    near = nearest_color(value, classes)
    text = (
        f"{scan.path} holds the colour {classes.text(value)} in {wrong[value]} pixels"
        f"{f' ({len(wrong)} unknown colours in all)' if len(wrong) > 1 else ''}; {near}; "
        "save labels without smoothing and lossy compression, or say in --LABEL_MAP what the colour means"
    )
    raise FileError(text, "label value", scan.path, f"{detail}; {near}")


def _by_color(scans: Sequence[LabelScan]) -> bool:
    """Tell whether the labels hold colours; some that do and some that do not are a mistake."""
    first = scans[0]
    other = next((scan for scan in scans if scan.by_color != first.by_color), None)
    if other is not None:
        colored, grey = (first, other) if first.by_color else (other, first)
        text = (
            f"{colored.path} holds colours and {grey.path} holds numbers; all labels of a set are of one kind"
        )
        raise FileError(text, "label kinds", other.path, f"unlike {first.path.name}")
    return first.by_color


def all_values(scans: Sequence[LabelScan]) -> dict[int, int]:
    """Return value -> pixels over all labels, pixels of the no-data values included."""
    counts: Counter[int] = Counter()
    for scan in scans:
        counts.update(scan.counts)
        if scan.nodata_pixels and scan.nodata is not None:
            counts[scan.nodata] += scan.nodata_pixels
    return dict(counts)


def _grey(scan: LabelScan) -> LabelScan:
    """Return the scan of a grey label that was saved as RGB, with numbers for its greys."""
    nodata = None if scan.nodata is None else scan.nodata & 255
    return replace(
        scan, counts={value & 255: n for value, n in scan.counts.items()}, nodata=nodata, by_color=False
    )


def _grey_as_color(classes: Classes) -> Classes:
    table = {value * 0x010101: index for value, index in classes.table.items() if 0 <= value < 256}
    ignored = tuple(value * 0x010101 for value in classes.ignored if 0 <= value < 256)
    return replace(classes, table=table, ignored=ignored, kind="color")


def _seen(scans: Sequence[LabelScan], ignored_nodata: Sequence[int] = ()) -> set[int]:
    """Return the values of all labels, no-data values included unless they are listed."""
    values = {value for scan in scans for value in scan.counts}
    hidden = {scan.nodata for scan in scans if scan.nodata_pixels and _may_be_class(scan.nodata)}
    return (values | hidden) - set(ignored_nodata)


def _may_be_class(nodata: int | None) -> bool:
    return nodata is not None and nodata >= 0 and nodata != 255


def _from_labels(
    file: ClassesFile, scans: Sequence[LabelScan], num_classes: int | None, palette: dict[int, Color] | None
) -> tuple[Classes, list[str]]:
    nodata = _ignored_nodata(scans, file.ignored)
    ignored = (*file.ignored, *(value for value in nodata if value not in file.ignored))
    values = sorted(_seen(scans, nodata) - set(ignored))
    count = max(2, values[-1] + 1) if values else 2
    if num_classes is None and count > MOST_CLASSES_GUESSED:
        scan = next(scan for scan in scans if values[-1] in scan.counts or scan.nodata == values[-1])
        held = f"the label value {values[-1]} in {scan.counts.get(values[-1], 0)} pixels"
        meant = f"which would mean {count} classes"
        text = f"{scan.path} holds {held}, {meant}; mend the label, or write classes.json"
        raise FileError(text, "classes", scan.path, f"{held}, {meant}")
    notices = [f"label value {value} is the files' no-data value: ignored" for value in nodata]
    total = count if num_classes is None else num_classes
    used = sum(1 for value in values if 0 <= value < total)
    if num_classes is None and 2 * used < total:
        notices.append(
            f"labels use only {used} of the values 0..{total - 1}: classes that never occur cost memory; "
            "renumber the labels (--LABEL_MAP) if that is not meant"
        )
    return plain_classes(total, ignored, file.names, file.palette, palette), notices


def _ignored_nodata(scans: Sequence[LabelScan], ignored: Sequence[int]) -> list[int]:
    """Return the no-data values that cannot be classes: negative, 255, or above every other value."""
    nodata = {scan.nodata for scan in scans if scan.nodata is not None and scan.nodata_pixels}
    others = Counter(value for scan in scans for value in scan.counts)
    others = set(others) - nodata - set(ignored) - set(DEFAULT_IGNORED)
    top = max(others, default=-1)
    return sorted(value for value in nodata if not _may_be_class(value) or value > top)
