"""Where a data set says what its classes are."""

from pathlib import Path

from utils.data.classes_file import ClassesFile, find_classes_file, read_classes_json
from utils.data.layouts import Layout
from utils.data.layouts.folders import IMAGE_FOLDERS


def classes_file(root: Path, layout: Layout, label_dir: str | None) -> ClassesFile | None:
    """Read the `classes.json` of a data set; that of a scene stands beside it, or beside its folder."""
    path = find_classes_file(root, label_dir)
    if path is None and layout.format == "scene":
        folder = next(iter(layout.splits.values()))[0].image.parent
        around = [folder, *([folder.parent] if folder.name.lower() in IMAGE_FOLDERS else [])]
        path = next((found for place in around if (found := find_classes_file(place))), None)
    return read_classes_json(path) if path else None


def class_table(root: Path) -> str | None:
    """Return the table of colours that some data sets bring along, name,r,g,b."""
    path = root / "class_dict.csv"
    return str(path) if path.is_file() else None
