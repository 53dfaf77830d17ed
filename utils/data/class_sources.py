"""Where a data set says what its classes are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.data.class_table import LabelScan, check_values, classes_or_values, mapped_onto
from utils.data.classes_file import ClassesFile, find_classes_file, read_classes_json
from utils.data.findings import Report
from utils.data.label_map import parse_label_map
from utils.data.labels import KINDS, Classes
from utils.data.layouts import Layout
from utils.data.layouts.folders import IMAGE_FOLDERS
from utils.data.raster import read_palette


class ClassSources(NamedTuple):
    """What is known of the classes before any label is read.

    Attributes:
        classes: A checkpoint's, which the labels then must fit.
        file: The data set's `classes.json`.
        meaning: Classes by the file or the layout; not beside a checkpoint's.
        label_map: What label values mean, by `--LABEL_MAP` or the data set's own table.
        by_bands: The bands of the labels are classes.
    """

    classes: Classes | None
    file: ClassesFile | None
    meaning: ClassesFile | None
    label_map: str | None
    by_bands: bool

    @property
    def saturated(self) -> bool:
        """Whether the channels of colour labels are rounded to 0 or 255."""
        if self.classes is not None:
            return self.classes.kind == KINDS[2]
        return bool(self.meaning and self.meaning.saturated)

    @property
    def complete(self) -> bool:
        """Whether the classes are known without reading all labels."""
        return self.classes is not None or self.meaning is not None or bool(self.label_map)

    def resolve(
        self, labels: Sequence[LabelScan], num_classes: int | None, report: Report
    ) -> tuple[Classes, Sequence[str]]:
        """Return the classes, with every label value checked, and remarks on how they were found.

        Raises:
            UserError: the labels do not fit, or it cannot be told what they mean.
        """
        palette = read_palette(labels[0].path)
        if self.classes is None:
            rules = parse_label_map(self.label_map) if self.label_map else ()
            return classes_or_values(self.meaning, labels, num_classes, palette, rules, report)
        classes = mapped_onto(self.classes, self.label_map, labels, palette)
        check_values(labels, classes, report)
        return classes, []


def class_sources(
    root: Path,
    layout: Layout,
    label_dir: str | None,
    label_map: str | None,
    task: str,
    classes: Classes | None,
) -> ClassSources:
    """Return what a data set, the flags and a checkpoint say of the classes."""
    file = _classes_file(root, layout, label_dir)
    by_bands = task == "multilabel" if classes is None else classes.multilabel
    meaning = None
    if classes is None:
        meaning = file or (None if by_bands else layout.meaning)
        label_map = label_map or (None if meaning or by_bands else _class_table(root))
    return ClassSources(classes, file, meaning, label_map, by_bands)


def _classes_file(root: Path, layout: Layout, label_dir: str | None) -> ClassesFile | None:
    """Read the `classes.json` of a data set; that of a scene stands beside it, or beside its folder."""
    path = find_classes_file(root, label_dir)
    if path is None and layout.format == "scene":
        folder = next(iter(layout.splits.values()))[0].image.parent
        around = [folder, *([folder.parent] if folder.name.lower() in IMAGE_FOLDERS else [])]
        path = next((found for place in around if (found := find_classes_file(place))), None)
    return read_classes_json(path) if path else None


def _class_table(root: Path) -> str | None:
    """Return the table of colours that some data sets bring along, name,r,g,b."""
    path = root / "class_dict.csv"
    return str(path) if path.is_file() else None
