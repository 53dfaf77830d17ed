"""What every reader of a layout returns, and what the readers share: finding files and pairing them."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nets.errors import UserError
from utils.data.classes_file import ClassesFile
from utils.data.findings import WARNING, FileError, Finding, Report, of_files, stop, told
from utils.data.raster_files import RASTER_SUFFIXES

# How people spell the splits.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "tst"),
}
# Words that tell the role of a file and not its name: tile_7_sat.jpg and tile_7_mask.png are one tile.
LABEL_WORDS = (
    *("label", "labels", "mask", "masks", "gt", "gts", "truth", "groundtruth", "ann", "annot", "annotation"),
    *(
        "annotations",
        "seg",
        "segm",
        "segmentation",
        "target",
        "labelids",
        "labeltrainids",
        "trainids",
        "class",
    ),
    *("classes", "lulc", "landcover", "reference"),
)
IMAGE_WORDS = ("image", "images", "img", "imgs", "sat", "rgb", "irrg", "rgbir", "scene", "ortho", "photo")
_ROLE_WORDS = {*LABEL_WORDS, *IMAGE_WORDS, "ground"}


class Entry(NamedTuple):
    """One image with its label: name without extension, the two files, and (path, place) of extra rasters."""

    name: str
    image: Path
    label: Path
    extra: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        format: The name of the layout, as `--DATASET_FORMAT` takes it.
        title: The layout in words.
        splits: The pairs of each split that was found.
        meaning: What is known of the label values, None where nothing is.
        notices: Sentences that the user should read.
        findings: What is odd about the files.
        sources: Where a split is written down, for messages; the split's name where it is not in here.
        available: The splits that can be asked for; those in `splits` by default.
        by_blocks: Blocks of each image are held back for validation, rather than whole images.
    """

    format: str
    title: str
    splits: dict[str, list[Entry]]
    meaning: ClassesFile | None = None
    notices: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    available: tuple[str, ...] = ()
    by_blocks: bool = False


class Request(NamedTuple):
    """What is asked of a reader.

    Attributes:
        root: `--DATASET_PATH`.
        label_dir: `--LABEL_DIR`: the folder of the labels in place of the layout's own.
        splits: The splits that will be read; None for training.
        report: Gets the mistakes of single files.
    """

    root: Path
    label_dir: str | None = None
    splits: tuple[str, ...] | None = None
    report: Report = stop

    @property
    def wanted(self) -> tuple[str, ...]:
        """The splits without which nothing can be done."""
        return self.splits or ("train",)


Reader = Callable[[Request], Layout | None]


class RasterFolder:
    """The rasters of a folder and its sub-folders, found by relative name with or without extension."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_stem: dict[str, list[Path]] = {}
        for parent, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            for file in sorted(files):
                path = Path(parent, file)
                if is_raster(path):
                    self.by_stem.setdefault(self.stem(path), []).append(path)

    def stem(self, path: Path) -> str:
        """Return the name of a file: its path in the folder without extension."""
        return path.relative_to(self.folder).with_suffix("").as_posix()

    def has(self, name: str) -> bool:
        """Tell whether a name stands for a file."""
        return bool(self.candidates(name))

    def find(self, name: str, role: str, source: Path) -> Path:
        """Return the one file of a name that stands in a list."""
        found = self.candidates(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise FileError(
                f"{source}: the {role} of {name!r} may be {_names(found)} in {self.folder}; "
                "write the name with its extension in the list, or remove one of the files",
                "several files",
                self.folder / name,
                f"{_names(found)}; {source.name}",
            )
        raise FileError(
            f"{source}: no {role} {name!r} in {self.folder} "
            f"({', '.join(RASTER_SUFFIXES)}); add the file or take the name out of the list",
            f"{role} missing",
            self.folder / name,
            source.name,
        )

    def candidates(self, name: str) -> list[Path]:
        """Return the files that a name may stand for."""
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in RASTER_SUFFIXES:
            found = [path for path in self.by_stem.get(stem, ()) if path.suffix.lower() == suffix.lower()]
            exact = [path for path in found if path.suffix == suffix]
            if found:
                return exact or found
        return self.by_stem.get(name, [])


def is_raster(path: Path) -> bool:
    """Tell whether a file's name is one of a raster."""
    return path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".")


def rasters_in(folder: Path) -> list[Path]:
    """Return the rasters of a folder itself."""
    return sorted(path for path in folder.iterdir() if is_raster(path) and path.is_file())


def subfolders(folder: Path) -> dict[str, Path]:
    """Return the folders in a folder by their names in lower case."""
    if not folder.is_dir():
        return {}
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def first_folder(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of the named folders in a folder, in any case."""
    found = subfolders(folder)
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def role_free(stem: str) -> str:
    """Return a name without the words that tell the role of the file."""
    parent, _, name = stem.lower().rpartition("/")
    words = re.split(r"[_\-. ]+", name)
    kept = [word for word in words if word not in _ROLE_WORDS]
    return f"{parent}/{'_'.join(kept)}" if parent else "_".join(kept)


def pair_folders(images: Path, labels: Path, report: Report = stop) -> tuple[list[Entry], list[Finding]]:
    """Pair the rasters of two folders by name, and by name without the words for their roles.

    Args:
        images: Folder of the images.
        labels: Folder of the labels.
        report: Gets the names of which there are two files.

    Returns:
        The pairs, and findings about images and labels that have no partner.

    Raises:
        UserError: No pair at all.
    """
    pictures, truths = RasterFolder(images), RasterFolder(labels)
    loose: dict[str, list[Path]] = {}
    for stem, paths in truths.by_stem.items():
        loose.setdefault(role_free(stem), []).extend(paths)
    entries, alone = [], []
    for stem, paths in pictures.by_stem.items():
        found = truths.by_stem.get(stem) or loose.get(role_free(stem)) or []
        if not found:
            alone.append(paths[0])
            continue
        entries.append(Entry(stem, paths[0], found[0]))
        for role, files, folder in (("image", paths, images), ("label", found, labels)):
            with told(report):
                _require_one(role, stem, files, folder)
    if not entries:
        raise UserError(
            f"no image of {images} has a label of the same name in {labels} "
            f"({len(pictures.by_stem)} images, {len(truths.by_stem)} labels); rename the files or write lists"
        )
    used = {entry.label for entry in entries}
    spare = [path for paths in truths.by_stem.values() for path in paths if path not in used]
    return entries, [*_alone("images have no label", alone), *_alone("labels have no image", spare)]


def _require_one(role: str, stem: str, files: Sequence[Path], folder: Path) -> None:
    if len(files) > 1:
        text = f"the {role} of {stem!r} may be {_names(files)} in {folder}; remove one of the files"
        raise FileError(text, "several files", folder / stem, _names(files))


def named_splits(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files train, val and test with a suffix in a folder, however they are spelled."""
    files = {path.name.lower(): path for path in sorted(folder.glob(f"*{suffix}"))} if folder.is_dir() else {}
    found = {}
    for split, names in SPLITS.items():
        path = next((files[f"{name}{suffix}"] for name in names if f"{name}{suffix}" in files), None)
        if path is not None:
            found[split] = path
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not empty, with forward slashes.

    Raises:
        UserError: The list is missing, empty or no text.
    """
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


def _alone(what: str, paths: Sequence[Path]) -> list[Finding]:
    text = f"{len(paths)} {what} and are left out"
    return [Finding(WARNING, what, text, "give both files one name", of_files(paths))] if paths else []


def _names(paths: Sequence[Path]) -> str:
    return " and ".join(path.name for path in paths)
