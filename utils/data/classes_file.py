"""`classes.json`: what a data set says about its classes."""

import json
from dataclasses import dataclass
from pathlib import Path

from nets.errors import UserError
from utils.data.labels import DEFAULT_IGNORED, Classes, Color, parse_color, plain_classes


@dataclass(frozen=True)
class ClassesFile:
    """What a `classes.json` says; None where it says nothing.

    Attributes:
        names: Name of each class.
        palette: Colour of each class.
        num_classes: Number of classes.
        ignored: Ignored label values (`DEFAULT_IGNORED` where the key is absent, none where it is null).
        bands: Names of the image's bands.
        label_dir: Folder of the labels that this file describes.
        table: Label value or packed colour -> class; None where values are classes and colours the palette's.
        saturated: Channels of colour labels are rounded to 0 or 255 before they are looked up.
    """

    names: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    num_classes: int | None = None
    ignored: tuple[int, ...] = DEFAULT_IGNORED
    bands: tuple[str, ...] | None = None
    label_dir: str | None = None
    table: dict[int, int] | None = None
    saturated: bool = False


def read_classes_json(path: Path | str) -> ClassesFile:
    """Read a `classes.json`: any of the keys names, palette, num_classes, ignore_index, bands, label_dir.

    Raises:
        UserError: No JSON object, a value of the wrong kind, or lists whose lengths contradict each other.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({' '.join(str(error).split())}); mend or remove it"
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f'{path} holds a {type(values).__name__}; an object like {{"names": ["a", "b"]}} is needed'
        )
    names = _strings(path, "names", values.get("names"))
    palette = _palette(path, values.get("palette"))
    number = values.get("num_classes")
    if number is not None and (not _is_int(number) or number < 1):
        raise UserError(f'{path}: "num_classes" is {number!r}; a whole number from 1 is needed')
    lengths = {
        key: length
        for key, length in (
            ("num_classes", number),
            ("names", None if names is None else len(names)),
            ("palette", None if palette is None else len(palette)),
        )
        if length is not None
    }
    if len(set(lengths.values())) > 1:
        said = ", ".join(f'"{key}" says {length}' for key, length in lengths.items())
        raise UserError(f"{path} contradicts itself about the number of classes ({said}); make them agree")
    ignored = _ignored(path, values["ignore_index"]) if "ignore_index" in values else DEFAULT_IGNORED
    bands = _strings(path, "bands", values.get("bands"))
    label_dir = values.get("label_dir")
    if label_dir is not None and (not isinstance(label_dir, str) or not label_dir.strip()):
        raise UserError(f'{path}: "label_dir" is {label_dir!r}; the name of a folder is needed')
    return ClassesFile(names, palette, next(iter(lengths.values()), None), ignored, bands, label_dir)


def find_classes_file(root: Path, label_dir: str | None = None) -> Path | None:
    """Return the `classes*.json` below `root` that describes the labels in `label_dir`.

    Without a `label_dir` that is `classes.json`. A data set with several sets of labels has one file for
    each, which names its folder by "label_dir".
    """
    usual = root / "classes.json"
    if label_dir is None:
        return usual if usual.is_file() else None
    files = [usual, *sorted(root.glob("classes*.json"))] if root.is_dir() else []
    for path in files:
        if path.is_file() and (read_classes_json(path).label_dir or "labels") == label_dir:
            return path
    return None


def file_classes(file: ClassesFile, num_classes: int | None, palette: dict[int, Color] | None) -> Classes:
    """Return the classes of a file that says how many there are, and more where more are asked for."""
    count = file.num_classes
    if num_classes is not None and num_classes < count:
        raise UserError(
            f"{num_classes} classes were asked for, classes.json names {count}; "
            f"give --NUM_CLASS {count} or more, or leave it out"
        )
    total = max(count, num_classes or 0)
    return plain_classes(total, file.ignored, file.names, file.palette, palette, file.table)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _strings(path: Path, key: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise UserError(f'{path}: "{key}" is {value!r}; a list of names is needed')
    if len(set(value)) < len(value):
        raise UserError(f'{path}: "{key}" holds a name twice; every name may stand once')
    return tuple(value)


def _palette(path: Path, value: object) -> tuple[Color, ...] | None:
    if value is None:
        return None
    good = isinstance(value, list) and all(
        isinstance(color, list)
        and len(color) == 3
        and all(_is_int(part) and 0 <= part <= 255 for part in color)
        for color in value
    )
    if not good:
        raise UserError(f'{path}: "palette" must be a list of [red, green, blue] with numbers 0..255')
    return tuple((color[0], color[1], color[2]) for color in value)


def _ignored(path: Path, value: object) -> tuple[int, ...]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    values = [parse_color(item) if isinstance(item, str) else item for item in values]
    if not all(_is_int(item) for item in values):
        raise UserError(
            f'{path}: "ignore_index" is {value!r}; a whole number, a color like "#ff0000", a list of them, '
            "or null is needed"
        )
    return tuple(values)
