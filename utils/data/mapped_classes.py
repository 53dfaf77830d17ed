"""Classes as `--LABEL_MAP` says, on top of what is known of the data set."""

from collections.abc import Iterable, Mapping, Sequence

from nets.errors import UserError
from utils.data.classes_file import ClassesFile, file_classes
from utils.data.color_labels import known_colors
from utils.data.label_map import Rule, resolve_values
from utils.data.labels import Classes, Color, default_colors, unpack_color

Target = int | str | None


def mapped_classes(
    known: Classes,
    rules: Sequence[Rule],
    seen: Iterable[int],
    palette: dict[int, Color] | None,
    least: int = 2,
) -> Classes:
    """Return the classes after the rules of a label map.

    Args:
        known: What is known without it; it may hold no class at all. Classes of it to which a value led
            and none does any more are left out, unless the map names classes by number.
        rules: The label map.
        seen: All values in the labels, for the rule "*".
        palette: Colour table of the labels.
        least: Smallest number of classes.

    Raises:
        UserError: a value of the wrong kind, or no class is left.
    """
    by_color = known.by_color
    targets = resolve_values(rules, sorted(seen), by_color, palette)
    names, table, ignored = _apply(known, targets)
    if not table:
        raise UserError("--LABEL_MAP ignores every value; say which values are classes")
    colors = dict(enumerate(known.colors))
    if known.table and not any(isinstance(target, int) for target in targets.values()):
        kept = sorted(set(table.values()))
        names = [names[index] for index in kept]
        colors = {new: colors[old] for new, old in enumerate(kept) if old in colors}
        table = {value: kept.index(index) for value, index in table.items()}
    count = max(max(table.values()) + 1, least)
    names += [f"class_{index}" for index in range(len(names), count)]
    shown = _shown_colors(table, by_color, palette)
    spare = (color for color in default_colors(2 * count) if color not in (*colors.values(), *shown.values()))
    given = tuple(colors.get(i) or shown.get(i) or next(spare) for i in range(count))
    return Classes(tuple(names), given, table, tuple(ignored), known.kind)


def base_classes(file: ClassesFile | None, by_color: bool, palette: dict[int, Color] | None) -> Classes:
    """Return what is known before a label map is read; it may be no class at all."""
    if by_color:
        return known_colors(file) or Classes((), (), {}, (), "color")
    if file is None or file.num_classes is None:
        return Classes((), (), {}, (file or ClassesFile()).ignored)
    return file_classes(file, None, palette)


def _apply(known: Classes, targets: Mapping[int, Target]) -> tuple[list[str], dict[int, int], list[int]]:
    """Return names, table and ignored values after each value got its target."""
    names, table = list(known.names), dict(known.table)
    ignored = [value for value in known.ignored if value not in targets]
    for value, target in targets.items():
        table.pop(value, None)
        if target is None:
            ignored.append(value)
        else:
            table[value] = target if isinstance(target, int) else _index(names, target)
    return names, table, ignored


def _index(names: list[str], name: str) -> int:
    """Return the number of a class, which is added where it is new."""
    lower = [known.lower() for known in names]
    if name.lower() not in lower:
        names.append(name)
        return len(lower)
    return lower.index(name.lower())


def _shown_colors(
    table: Mapping[int, int], by_color: bool, palette: dict[int, Color] | None
) -> dict[int, Color]:
    """Return class -> the colour in the labels of its first value."""
    first = {index: value for value, index in sorted(table.items(), reverse=True)}
    if by_color:
        return {index: unpack_color(value) for index, value in first.items()}
    return {index: palette[value] for index, value in first.items() if palette and value in palette}
