"""Label values, classes and colours: one table decides what every value in a label file means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nets.errors import UserError
from utils.data.findings import FileError

IGNORE = -1
DEFAULT_IGNORED = (255, -1)
_UNKNOWN = -2
_EXACT_IN_FLOAT64 = 2**53
_NEAR = (-(2**15), 2**16 - 1)

Color = tuple[int, int, int]

# What a label file holds: class numbers, colours, or colours whose channels are rounded to 0 or 255 first; or
# in each band whether a class is present.
KINDS = ("number", "color", "saturated color", "presence")

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


def pack_color(color: Sequence[int]) -> int:
    """Return a colour (red, green, blue) as one number: how colour labels are handled everywhere."""
    red, green, blue = (int(part) for part in color)
    return red << 16 | green << 8 | blue


def pack_colors(bands: np.ndarray) -> np.ndarray:
    """Pack red, green and blue (3, H, W) into one number per pixel (H, W)."""
    red, green, blue = bands.astype(np.int32)
    return red << 16 | green << 8 | blue


def unpack_color(value: int) -> Color:
    """Return (red, green, blue) of a packed colour."""
    return value >> 16 & 255, value >> 8 & 255, value & 255


def saturate(label: np.ndarray) -> np.ndarray:
    """Round each channel of packed colours to 0 or 255."""
    return (label >> 7 & 0x010101) * 255


def value_text(value: int, kind: str) -> str:
    """Return a label value as users write it: 12, or #00ff00 for a colour."""
    return f"#{value:06x}" if "color" in kind else str(value)


def whole_numbers(path: Path, label: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a float label into int64; pixels that are not finite become invalid zeros."""
    valid = valid & np.isfinite(label)
    usable = np.isfinite(label) & (np.abs(label) < _EXACT_IN_FLOAT64)
    whole = np.where(usable, label, 0).astype(np.int64)
    wrong = valid & (whole != label)
    if wrong.any():
        held = f"{label[wrong][0]:g} in {np.count_nonzero(wrong)} pixels"
        text = f"{path} holds {held}; labels are whole numbers: class ids"
        raise FileError(text, "label numbers", path, held)
    return whole, valid


class LabelValueError(UserError):
    """A label holds a value that is neither a class nor ignored.

    Attributes:
        value: The most frequent such value.
        count: Pixels that hold it.
    """

    def __init__(self, value: int, count: int, allowed: str, kind: str = "number") -> None:
        super().__init__(f"label value {value_text(value, kind)} in {count} pixels; allowed are {allowed}")
        self.value = value
        self.count = count
        self.allowed = allowed
        self.kind = kind

    def __reduce__(self) -> tuple:
        return type(self), (self.value, self.count, self.allowed, self.kind)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set and the meaning of its label values.

    Attributes:
        names: Name of each class.
        colors: Red, green, blue (0..255) of each class.
        table: Value in the label file -> class id; colours are packed into one number. Where the bands are
            the classes: value in any of them -> 1 (present) or 0 (absent).
        ignored: Values in the label file that take part neither in loss nor in metrics.
        kind: What the values are, one of `KINDS`.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    table: dict[int, int]
    ignored: tuple[int, ...]
    kind: str = "number"

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.names)

    @property
    def multilabel(self) -> bool:
        """Whether a pixel can have several classes: masks are (K, H, W) of 0 and 1 instead of ids (H, W)."""
        return self.kind == KINDS[3]

    @property
    def task(self) -> str:
        """The task of a network of these classes."""
        return "multilabel" if self.multilabel else "multiclass"

    @property
    def by_color(self) -> bool:
        """Whether the label values are packed colours."""
        return "color" in self.kind

    @property
    def meanings(self) -> "Classes":
        """What the values of one band mean: the classes themselves, or absent and present."""
        if not self.multilabel:
            return self
        return Classes(("absent", "present"), default_colors(2), self.table, self.ignored)

    def labelled(self, tallies: np.ndarray) -> np.ndarray:
        """Return the pixels (K) that are labelled for each class; for `tallies` see `dividing`."""
        count = self.num_classes
        return tallies.reshape(-1, count).sum(0) if self.multilabel else np.full(count, tallies.sum())

    @property
    def allowed(self) -> str:
        """The label values that may occur, in words."""
        values = sorted(self.table)
        ranges = values and values == list(range(values[0], values[-1] + 1)) and len(values) > 2
        ranges = ranges and not self.by_color
        text = f"{values[0]}..{values[-1]}" if ranges else ", ".join(map(self.text, values))
        return f"{text} and ignored {', '.join(map(self.text, self.ignored))}" if self.ignored else text

    def text(self, value: int) -> str:
        """Return a label value as users write it."""
        return value_text(value, self.kind)

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
            Class ids, or 1 where present and 0 where absent, as int16; IGNORE where ignored.

        Raises:
            LabelValueError: A valid pixel holds a value that is neither a class nor ignored.
        """
        if self.kind == "saturated color":
            label = saturate(label)
        table, first, far = self._lookup
        last = first + len(table) - 1
        if label.size and first <= int(label.min()) and int(label.max()) <= last:
            # Without a step through a wider type where every value of the type is an index.
            steps = first <= 0 and label.dtype.kind == "u"
            codes = table[-first:].take(label) if steps else table.take(label.astype(np.int32) - first)
        else:
            codes = np.full(label.shape, _UNKNOWN, dtype=np.int16)
            inside = (label >= first) & (label <= last)
            codes[inside] = table[label[inside].astype(np.int64) - first]
            for value, code in far.items():
                codes[label == value] = code
        if valid is not None and not valid.all():
            codes[~valid] = IGNORE
        if codes.size and codes.min() == _UNKNOWN:  # no code is smaller
            unknown = codes == _UNKNOWN
            values, counts = np.unique(label[unknown], return_counts=True)
            most = int(counts.argmax())
            raise LabelValueError(int(values[most]), int(counts[most]), self.allowed, self.kind)
        return codes

    def to_dict(self) -> dict[str, list | str]:
        """Return plain lists, integers and strings for a checkpoint or JSON."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "table": [[value, class_id] for value, class_id in sorted(self.table.items())],
            "ignored": list(self.ignored),
            "kind": self.kind,
        }

    @classmethod
    def from_dict(cls, values: dict[str, list | str]) -> "Classes":
        """Build the classes from what `to_dict` returned."""
        return cls(
            names=tuple(str(name) for name in values["names"]),
            colors=tuple((int(red), int(green), int(blue)) for red, green, blue in values["colors"]),
            table={int(value): int(class_id) for value, class_id in values["table"]},
            ignored=tuple(int(value) for value in values["ignored"]),
            kind=str(values.get("kind", "number")),  # absent from the first checkpoints
        )


def parse_color(text: str) -> int | None:
    """Return a colour written #rrggbb as one number, None where the text is something else."""
    return int(text[1:], 16) if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else None


def default_colors(count: int) -> tuple[Color, ...]:
    """Return `count` different colours: eight that are easy to tell apart, then Pascal VOC's colour map."""
    colors = list(_FIRST_COLORS[:count])
    index = 1
    while len(colors) < count:
        color = voc_color(index)
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


def plain_classes(
    count: int,
    ignored: Sequence[int],
    names: tuple[str, ...] | None,
    colors: tuple[Color, ...] | None,
    palette: dict[int, Color] | None,
    table: dict[int, int] | None = None,
) -> Classes:
    """Build classes, whose ids are their label values unless a table is given; fill in names and colours."""
    names = (names or ())[:count]
    names += tuple(f"class_{index}" for index in range(len(names), count))
    values = range(count) if table is None else sorted(table, key=table.__getitem__)
    colors = colors or palette_colors(palette, values) or ()
    spare = [color for color in default_colors(count + len(colors)) if color not in colors]
    colors = (*colors, *spare)[:count]
    if table is None:
        table = {value: value for value in range(count) if value not in ignored}
    return Classes(names, colors, table, tuple(ignored))


def voc_color(index: int) -> Color:
    """Return Pascal VOC's colour of a class.

    The bits of the index are spread over red, green and blue, the lowest bits to the brightest steps.
    """
    color = [0, 0, 0]
    for step in range(8):
        for channel in range(3):
            color[channel] |= (index >> (3 * step + channel) & 1) << (7 - step)
    return color[0], color[1], color[2]
