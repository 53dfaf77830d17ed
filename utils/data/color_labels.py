"""Labels that are pictures: which colour is which class."""

from collections.abc import Mapping

from nets.errors import UserError
from utils.data.classes_file import ClassesFile
from utils.data.findings import FileError
from utils.data.labels import DEFAULT_IGNORED, Classes, pack_color, plain_classes, unpack_color, value_text

# Without a table, more colours than these are smoothed or compressed labels.
MOST_COLORS_GUESSED = 64
# Largest difference in a channel (0..255) at which a colour is taken for a damaged copy of another.
NEAR = 12


def color_classes(
    file: ClassesFile | None, counts: Mapping[int, int], num_classes: int | None
) -> tuple[Classes | None, list[str]]:
    """Return the classes of labels that hold packed colours, and notices.

    Args:
        file: Contents of `classes.json` or what a known data set says; its table or palette decides.
        counts: Packed colour -> pixels over all labels.
        num_classes: What the user asks for.

    Returns:
        None for the classes where all colours are greys that no table names: numbers that were saved as RGB.

    Raises:
        UserError: too many colours, or two that nearly agree.
    """
    known = known_colors(file)
    greys = all(len(set(unpack_color(value))) == 1 for value in counts)
    if known is not None and not (greys and set(counts) - set(known.table) - set(known.ignored)):
        return _check_count(known, num_classes), []
    if greys:
        return None, ["labels are grey pictures of three bands: the grey is the label value"]
    _check_guess(counts)
    values = sorted(counts)
    names = tuple(value_text(value, "color") for value in values)
    table = {value: index for index, value in enumerate(values)}
    classes = Classes(names, tuple(map(unpack_color, values)), table, (), "color")
    notice = (
        f"labels hold {len(values)} colours: read as classes in the order of their values; "
        "--LABEL_MAP or classes.json names them"
    )
    return _check_count(classes, num_classes), [notice]


def known_colors(file: ClassesFile | None) -> Classes | None:
    """Return the classes whose colours a file tells, None where it tells none."""
    if file is None or (file.table is None and file.palette is None):
        return None
    table = file.table or {pack_color(color): index for index, color in enumerate(file.palette)}
    # In a classes.json for colours 255 and -1 are the usual numbers for "ignored", not a blue.
    unusual = file.table is not None
    ignored = [v for v in file.ignored if v not in table and (unusual or v not in DEFAULT_IGNORED)]
    classes = plain_classes(file.num_classes, ignored, file.names, file.palette, None, table)
    return Classes(
        classes.names, classes.colors, table, tuple(ignored), "saturated color" if file.saturated else "color"
    )


def nearest_color(value: int, classes: Classes) -> str:
    """Say which known colour a wrong one may have been."""
    known = [*classes.table, *classes.ignored]
    near = min(known, key=lambda other: _difference(value, other))
    if _difference(value, near) <= NEAR:
        role = classes.names[classes.table[near]] if near in classes.table else "ignored"
        return f"nearly {classes.text(near)} ({role})"
    return f"allowed are {classes.allowed}"


def _difference(one: int, other: int) -> int:
    return max(abs(a - b) for a, b in zip(unpack_color(one), unpack_color(other), strict=True))


def _check_guess(counts: Mapping[int, int]) -> None:
    values = sorted(counts, key=counts.__getitem__)
    if len(values) > MOST_COLORS_GUESSED:
        most = ", ".join(value_text(value, "color") for value in values[:-6:-1])
        raise FileError(
            f"labels hold {len(values)} colours, the most frequent are {most}: they seem smoothed "
            "or compressed; save them exactly, or say in --LABEL_MAP which colours are classes",
            "label colours",
            "",
            f"{len(values)} colours in all, the most frequent are {most}",
        )
    for index, rare in enumerate(values):
        for other in values[index + 1 :]:
            if _difference(rare, other) <= NEAR:
                one, two = value_text(rare, "color"), value_text(other, "color")
                near = f"{one} in {counts[rare]} pixels, nearly {two} ({counts[other]} pixels)"
                raise FileError(
                    f"labels hold the colour {near}; "
                    "save them without smoothing or compression, or say in --LABEL_MAP what they are",
                    "label colours",
                    "",
                    near,
                )


def _check_count(classes: Classes, num_classes: int | None) -> Classes:
    if num_classes is None or num_classes == classes.num_classes:
        return classes
    if num_classes < classes.num_classes:
        raise UserError(
            f"{num_classes} classes were asked for, the labels have {classes.num_classes} "
            f"({', '.join(classes.names)}); leave --NUM_CLASS out or join colours by --LABEL_MAP"
        )
    more = plain_classes(num_classes, classes.ignored, classes.names, classes.colors, None, classes.table)
    return Classes(more.names, more.colors, classes.table, classes.ignored, classes.kind)
