"""From the label values of a whole data set to its classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nets.errors import UserError
from utils.data.labels import (
    DEFAULT_IGNORED,
    Classes,
    ClassesFile,
    Color,
    default_colors,
    palette_colors,
)

# More classes than any published data set has: beyond it a stray value is far likelier than a class.
MOST_CLASSES_GUESSED = 1000


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
    """

    path: Path
    height: int
    width: int
    counts: dict[int, int]
    nodata: int | None = None
    nodata_pixels: int = 0

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
) -> tuple[Classes, list[str]]:
    """Decide once, over all splits, what every label value means.

    Args:
        file: Contents of `classes.json`, None where there is none.
        scans: All label files.
        num_classes: What the user asks for; more than the labels show is allowed.
        palette: Colour table of the label files, used where `classes.json` gives no colours.

    Returns:
        The classes, and notices for the user.

    Raises:
        UserError: `num_classes` contradicts the labels or the file, or a value is no plausible class.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"the number of classes is {num_classes}; it must be at least 1")
    if file is None and num_classes in (None, 2) and _seen(scans) == {0, 255}:
        colors = palette_colors(palette, (0, 255)) or default_colors(2)
        notice = "labels hold exactly 0 and 255: read as two classes, 0 -> class_0 and 255 -> class_1"
        return Classes(("class_0", "class_1"), colors, {0: 0, 255: 1}, (-1,)), [notice]
    known = file or ClassesFile()
    if known.num_classes is not None:
        return _from_file(known, num_classes, palette), []
    return _from_labels(known, scans, num_classes, palette)


def check_values(scans: Sequence[LabelScan], classes: Classes) -> None:
    """Raise a UserError for the first file with a value that is neither a class nor ignored."""
    for scan in scans:
        counts = scan.values(classes)
        wrong = {v: n for v, n in counts.items() if v not in classes.table and v not in classes.ignored}
        if wrong:
            value = max(wrong, key=wrong.__getitem__)
            raise UserError(
                f"{scan.path} holds the label value {value} in {wrong[value]} pixels; allowed are "
                f"{classes.allowed}; mend the label, or say in classes.json what the value means"
            )


def _seen(scans: Sequence[LabelScan], ignored_nodata: Sequence[int] = ()) -> set[int]:
    """Return the values of all labels, no-data values included unless they are listed."""
    values = {value for scan in scans for value in scan.counts}
    hidden = {scan.nodata for scan in scans if scan.nodata_pixels and _may_be_class(scan.nodata)}
    return (values | hidden) - set(ignored_nodata)


def _may_be_class(nodata: int | None) -> bool:
    return nodata is not None and nodata >= 0 and nodata != 255


def _from_file(file: ClassesFile, num_classes: int | None, palette: dict[int, Color] | None) -> Classes:
    count = file.num_classes
    if num_classes is not None and num_classes < count:
        raise UserError(
            f"{num_classes} classes were asked for, classes.json names {count}; "
            f"give --NUM_CLASS {count} or more, or leave it out"
        )
    total = max(count, num_classes or 0)
    return _plain_classes(total, file.ignored, file.names, file.palette, palette)


def _from_labels(
    file: ClassesFile, scans: Sequence[LabelScan], num_classes: int | None, palette: dict[int, Color] | None
) -> tuple[Classes, list[str]]:
    nodata = _ignored_nodata(scans, file.ignored)
    ignored = (*file.ignored, *(value for value in nodata if value not in file.ignored))
    values = sorted(_seen(scans, nodata) - set(ignored))
    count = max(2, values[-1] + 1) if values else 2
    if num_classes is None and count > MOST_CLASSES_GUESSED:
        scan = next(scan for scan in scans if values[-1] in scan.counts or scan.nodata == values[-1])
        raise UserError(
            f"{scan.path} holds the label value {values[-1]} in {scan.counts.get(values[-1], 0)} pixels, "
            f"which would mean {count} classes; mend the label, or write classes.json"
        )
    notices = [f"label value {value} is the files' no-data value: ignored" for value in nodata]
    total = count if num_classes is None else num_classes
    used = sum(1 for value in values if 0 <= value < total)
    if num_classes is None and 2 * used < total:
        notices.append(
            f"labels use only {used} of the values 0..{total - 1}: classes that never occur cost memory; "
            "renumber the labels if that is not meant"
        )
    return _plain_classes(total, ignored, file.names, file.palette, palette), notices


def _ignored_nodata(scans: Sequence[LabelScan], ignored: Sequence[int]) -> list[int]:
    """Return the no-data values that cannot be classes: negative, 255, or above every other value."""
    nodata = {scan.nodata for scan in scans if scan.nodata is not None and scan.nodata_pixels}
    others = Counter(value for scan in scans for value in scan.counts)
    others = set(others) - nodata - set(ignored) - set(DEFAULT_IGNORED)
    top = max(others, default=-1)
    return sorted(value for value in nodata if not _may_be_class(value) or value > top)


def _plain_classes(
    count: int,
    ignored: Sequence[int],
    names: tuple[str, ...] | None,
    colors: tuple[Color, ...] | None,
    palette: dict[int, Color] | None,
) -> Classes:
    """Build classes whose ids are their label values; fill in the names and colours that are not given."""
    names = (names or ())[:count]
    names += tuple(f"class_{index}" for index in range(len(names), count))
    colors = colors or palette_colors(palette, range(count)) or ()
    spare = [color for color in default_colors(count + len(colors)) if color not in colors]
    colors = (*colors, *spare)[:count]
    table = {value: value for value in range(count) if value not in ignored}
    return Classes(names, colors, table, tuple(ignored))
