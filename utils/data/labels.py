"""Label values, classes and colours: one table decides what every value in a label file means."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nets.errors import UserError

IGNORE = -1
DEFAULT_IGNORED = (255, -1)
_UNKNOWN = -2
_NEAR = (-(2**15), 2**16 - 1)

Color = tuple[int, int, int]

# Okabe and Ito's eight colours, which colour-blind readers can tell apart ("Color Universal Design", 2008).
_FIRST_COLORS: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 0, 0),
)


class LabelValueError(UserError):
    """A label holds a value that is neither a class nor ignored.

    Attributes:
        value: The most frequent such value.
        count: Pixels that hold it.
    """

    def __init__(self, value: int, count: int, allowed: str) -> None:
        super().__init__(f"label value {value} in {count} pixels; allowed are {allowed}")
        self.value = value
        self.count = count
        self.allowed = allowed

    def __reduce__(self) -> tuple:
        return type(self), (self.value, self.count, self.allowed)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set and the meaning of its label values.

    Attributes:
        names: Name of each class.
        colors: Red, green, blue (0..255) of each class.
        table: Value in the label file -> class id.
        ignored: Values in the label file that take part neither in loss nor in metrics.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    table: dict[int, int]
    ignored: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.names)

    @property
    def allowed(self) -> str:
        """The label values that may occur, in words."""
        values = sorted(self.table)
        ranges = values and values == list(range(values[0], values[-1] + 1)) and len(values) > 2
        text = f"{values[0]}..{values[-1]}" if ranges else ", ".join(map(str, values))
        return f"{text} and ignored {', '.join(map(str, self.ignored))}" if self.ignored else text

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, int, dict[int, int]]:
        """A dense table, the value of its first entry, and the few values too far off to be in it."""
        codes = {**self.table, **dict.fromkeys(self.ignored, IGNORE)}
        near = [value for value in codes if _NEAR[0] <= value <= _NEAR[1]]
        first, last = (min(near), max(near)) if near else (0, 0)
        table = np.full(last - first + 1, _UNKNOWN, dtype=np.int16)
        for value in near:
            table[value - first] = codes[value]
        return table, first, {value: code for value, code in codes.items() if value not in near}

    def encode(self, label: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """Map label values to class ids.

        Args:
            label: Values as they stand in the file, any integer dtype and shape.
            valid: False where the pixel is ignored whatever its value.

        Returns:
            Class ids as int16, IGNORE where ignored.

        Raises:
            LabelValueError: A valid pixel holds a value that is neither a class nor ignored.
        """
        table, first, far = self._lookup
        last = first + len(table) - 1
        if label.size and first <= int(label.min()) and int(label.max()) <= last:
            codes = table[label.astype(np.int32) - first]
        else:
            codes = np.full(label.shape, _UNKNOWN, dtype=np.int16)
            inside = (label >= first) & (label <= last)
            codes[inside] = table[label[inside].astype(np.int64) - first]
            for value, code in far.items():
                codes[label == value] = code
        if valid is not None:
            codes[~valid] = IGNORE
        unknown = codes == _UNKNOWN
        if unknown.any():
            values, counts = np.unique(label[unknown], return_counts=True)
            most = int(counts.argmax())
            raise LabelValueError(int(values[most]), int(counts[most]), self.allowed)
        return codes

    def to_dict(self) -> dict[str, list]:
        """Return plain lists, integers and strings for a checkpoint or JSON."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "table": [[value, class_id] for value, class_id in sorted(self.table.items())],
            "ignored": list(self.ignored),
        }

    @classmethod
    def from_dict(cls, values: dict[str, list]) -> "Classes":
        """Build the classes from what `to_dict` returned."""
        return cls(
            names=tuple(str(name) for name in values["names"]),
            colors=tuple((int(red), int(green), int(blue)) for red, green, blue in values["colors"]),
            table={int(value): int(class_id) for value, class_id in values["table"]},
            ignored=tuple(int(value) for value in values["ignored"]),
        )


@dataclass(frozen=True)
class ClassesFile:
    """What a `classes.json` says; None where it says nothing.

    Attributes:
        names: Name of each class.
        palette: Colour of each class.
        num_classes: Number of classes.
        ignored: Ignored label values (`DEFAULT_IGNORED` where the key is absent, none where it is null).
        bands: Names of the image's bands.
    """

    names: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    num_classes: int | None = None
    ignored: tuple[int, ...] = DEFAULT_IGNORED
    bands: tuple[str, ...] | None = None


def read_classes_json(path: Path | str) -> ClassesFile:
    """Read a `classes.json`: any of the keys names, palette, num_classes, ignore_index and bands.

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
    return ClassesFile(names, palette, next(iter(lengths.values()), None), ignored, bands)


def default_colors(count: int) -> tuple[Color, ...]:
    """Return `count` different colours: eight that are easy to tell apart, then Pascal VOC's colour map."""
    colors = list(_FIRST_COLORS[:count])
    index = 1
    while len(colors) < count:
        color = _voc_color(index)
        if color not in _FIRST_COLORS:
            colors.append(color)
        index += 1
    return tuple(colors)


def palette_colors(palette: dict[int, Color] | None, values: Sequence[int]) -> tuple[Color, ...] | None:
    """Return the palette's colours of these label values, or None where it cannot tell the classes apart."""
    if palette is None or any(value not in palette for value in values):
        return None
    colors = tuple(palette[value] for value in values)
    grey_ramp = all(color == (value,) * 3 for color, value in zip(colors, values, strict=True))
    return None if grey_ramp or len(set(colors)) < len(colors) else colors


def _voc_color(index: int) -> Color:
    """Spread the bits of the index over red, green and blue, the lowest bits to the brightest steps."""
    color = [0, 0, 0]
    for step in range(8):
        for channel in range(3):
            color[channel] |= (index >> (3 * step + channel) & 1) << (7 - step)
    return color[0], color[1], color[2]


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
    if not all(_is_int(item) for item in values):
        raise UserError(
            f'{path}: "ignore_index" is {value!r}; a whole number, a list of them, or null is needed'
        )
    return tuple(values)
