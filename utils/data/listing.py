"""Lists of a data set: which image and which label belong to which name and split."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nets.errors import UserError
from utils.data.raster_files import RASTER_SUFFIXES

REQUIRED_SPLITS = ("train", "val")
OPTIONAL_SPLITS = ("test",)


class Entry(NamedTuple):
    """One line of a list: the name without extension, and its two files."""

    name: str
    image: Path
    label: Path


def read_layout(root: Path | str, splits: Sequence[str] | None = None) -> dict[str, list[Entry]]:
    """Find the files of every name in `annotations/SPLIT.txt` under `images/` and `labels/`.

    Names stand one per line, with or without extension, with sub-folders or without.

    Args:
        root: Folder of the data set.
        splits: Lists to read, all of them needed; by default train and val, and test where it exists.

    Raises:
        UserError: No data set, a missing or empty list, a name without image or label, or with several.
    """
    root = Path(root)
    _require_dataset(root)
    lists = {split: root / "annotations" / f"{split}.txt" for split in splits or REQUIRED_SPLITS}
    if splits is None:
        optional = {split: root / "annotations" / f"{split}.txt" for split in OPTIONAL_SPLITS}
        lists |= {split: path for split, path in optional.items() if path.is_file()}
    names = {split: _read_list(path) for split, path in lists.items()}
    images, labels = _Folder(root / "images"), _Folder(root / "labels")
    layout = {}
    for split, lines in names.items():
        layout[split] = []
        for line in lines:
            image = images.find(line, "image", lists[split])
            stem = images.stem(image)
            label = labels.find(line if labels.has(line) else stem, "label", lists[split])
            layout[split].append(Entry(stem, image, label))
    return layout


class _Folder:
    """The rasters of a folder and its sub-folders, found by relative name with or without extension."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_stem: dict[str, list[Path]] = {}
        for parent, _, files in os.walk(folder, followlinks=True):
            for file in sorted(files):
                path = Path(parent, file)
                if path.suffix.lower() in RASTER_SUFFIXES and not file.startswith("."):
                    self.by_stem.setdefault(self.stem(path), []).append(path)

    def stem(self, path: Path) -> str:
        return path.relative_to(self.folder).with_suffix("").as_posix()

    def has(self, name: str) -> bool:
        return bool(self._candidates(name))

    def find(self, name: str, role: str, source: Path) -> Path:
        found = self._candidates(name)
        if len(found) == 1:
            return found[0]
        if found:
            files = " and ".join(path.name for path in found)
            raise UserError(
                f"{source}: the {role} of {name!r} may be {files} in {self.folder}; "
                "write the name with its extension in the list, or remove one of the files"
            )
        raise UserError(
            f"{source}: no {role} {name!r} in {self.folder} "
            f"({', '.join(RASTER_SUFFIXES)}); add the file or take the name out of the list"
        )

    def _candidates(self, name: str) -> list[Path]:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in RASTER_SUFFIXES:
            found = [path for path in self.by_stem.get(stem, ()) if path.suffix.lower() == suffix.lower()]
            exact = [path for path in found if path.suffix == suffix]
            if found:
                return exact or found
        return self.by_stem.get(name, [])


def _require_dataset(root: Path) -> None:
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


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; write it with the name of one image per line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}); save it again") from error
    lines = [line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty; write the name of one image per line")
    return lines
