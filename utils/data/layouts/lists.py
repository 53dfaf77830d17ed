"""Lists of names: annotations/SPLIT.txt with images/ and labels/."""

from collections.abc import Sequence
from pathlib import Path

from nets.errors import UserError
from utils.data.classes_file import find_classes_file, read_classes_json
from utils.data.findings import NOTE, Finding, Report, of_files, stop, told
from utils.data.layouts.base import Entry, Layout, RasterFolder, Request, read_lines

REQUIRED_SPLITS = ("train", "val")
OPTIONAL_SPLITS = ("test",)


def read_lists(request: Request) -> Layout | None:
    """Read the lists that are asked for; without a list for validation none is returned for it."""
    root = request.root
    names = sorted(path.stem for path in (root / "annotations").glob("*.txt"))
    if not names:
        return None
    if request.splits is None:
        splits = [split for split in ("train", "val", "test") if split in names]
    else:
        held_back = "val" in request.splits and "val" not in names
        splits = [split for split in request.splits if split in names]
        splits += ["train"] if held_back and "train" not in splits and "train" in names else []
    groups, findings = _read(root, splits, request.label_dir, request.report) if splits else ({}, [])
    return Layout(
        format="lists",
        title=f"lists in {root / 'annotations'}, images/, {label_folder(root, request.label_dir).name}/",
        splits=groups,
        sources={split: str(root / "annotations" / f"{split}.txt") for split in splits},
        findings=tuple(findings),
        available=tuple(names),
    )


def label_folder(root: Path, label_dir: str | None) -> Path:
    """Return the folder of the labels: the given one, that of classes.json, or labels/."""
    if label_dir is not None:
        if not (root / label_dir).is_dir():
            raise UserError(f"--LABEL_DIR {label_dir}: {root} has no such folder")
        return root / label_dir
    path = find_classes_file(root)
    return root / ((read_classes_json(path).label_dir if path else None) or "labels")


def read_layout(
    root: Path | str,
    splits: Sequence[str] | None = None,
    label_dir: str | None = None,
    report: Report = stop,
) -> dict[str, list[Entry]]:
    """Find the files of every name in `annotations/SPLIT.txt` under `images/` and `labels/`.

    Names stand one per line, with or without extension, with sub-folders or without.

    Args:
        root: Folder of the data set.
        splits: Lists to read, all of them needed; by default train and val, and test where it exists.
        label_dir: Folder of the labels; by default what classes.json says, else labels/.
        report: Gets the names without image or label, or with several.

    Raises:
        UserError: No data set, a missing or empty list.
    """
    return _read(Path(root), splits, label_dir, report)[0]


def _read(
    root: Path, splits: Sequence[str] | None, label_dir: str | None, report: Report
) -> tuple[dict[str, list[Entry]], list[Finding]]:
    """Return what `read_layout` does, and which files stand in no list."""
    require_dataset(root)
    lists = {split: root / "annotations" / f"{split}.txt" for split in splits or REQUIRED_SPLITS}
    if splits is None:
        optional = {split: root / "annotations" / f"{split}.txt" for split in OPTIONAL_SPLITS}
        lists |= {split: path for split, path in optional.items() if path.is_file()}
    names = {split: read_lines(path) for split, path in lists.items()}
    images, labels = RasterFolder(root / "images"), RasterFolder(label_folder(root, label_dir))
    layout = {}
    for split, lines in names.items():
        layout[split] = []
        for line in lines:
            with told(report):
                image = images.find(line, "image", lists[split])
                stem = images.stem(image)
                label = labels.find(line if labels.has(line) else stem, "label", lists[split])
                layout[split].append(Entry(stem, image, label))
    entries = [entry for group in layout.values() for entry in group]
    return layout, [
        *_unlisted("images", images, {entry.image for entry in entries}),
        *_unlisted("labels", labels, {entry.label for entry in entries}),
    ]


def _unlisted(what: str, folder: RasterFolder, listed: set[Path]) -> list[Finding]:
    left = [path for paths in folder.by_stem.values() for path in paths if path not in listed]
    text = f"{len(left)} {what} stand in none of the lists that were read"
    return [Finding(NOTE, f"unlisted {what}", text, "", of_files(left))] if left else []


def require_dataset(root: Path) -> None:
    """Raise a UserError that says what to do where a folder holds no data set."""
    if (root / "annotations").is_dir() or (root / "images").is_dir():
        return
    below = sorted(path.parent for path in root.glob("*/annotations")) if root.is_dir() else []
    if below:
        raise UserError(
            f"{root} holds no data set itself, but {below[0]} does; give --DATASET_PATH {below[0]}"
        )
    raise UserError(
        f"{root} holds no data set; make the demo with `make demo`, or lay out your own data:\n"
        "annotations/train.txt and val.txt (one name per line), images/NAME.tif, labels/NAME.png"
    )
