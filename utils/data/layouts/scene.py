"""One scene and one raster of labels for it: two rasters beside each other, or named one after the other."""

from pathlib import Path

from nets.errors import UserError
from utils.data.layouts.base import Entry, Layout, Request
from utils.data.layouts.beside import pairs_beside
from utils.data.layouts.folders import read_folders

# Of fewer scenes than these none is held back whole.
_FEW = 10


def read_scene(request: Request) -> Layout | None:
    """Read `scene.tif,label.tif`, a folder with such pairs, or images/ and labels/ with one raster each."""
    if "," in str(request.root) and not request.root.exists():
        return _layout([_named(request.root)])
    if not request.root.is_dir():
        return None
    entries = pairs_beside(request.root)
    if not entries:
        folders = read_folders(request)
        entries = folders.splits["train"] if folders and list(folders.splits) == ["train"] else []
        entries = entries if len(entries) == 1 else []  # more are tiles
    return _layout(entries) if entries else None


def _layout(entries: list[Entry]) -> Layout:
    pairs = ", ".join(f"{entry.image} with {entry.label.name}" for entry in entries[:3])
    return Layout("scene", f"scene {pairs}", {"train": entries}, by_blocks=len(entries) < _FEW)


def _named(root: Path) -> Entry:
    """Return the two files of "scene.tif,label.tif"; the second one may stand in the first one's folder."""
    image, _, label = (part.strip() for part in str(root).partition(","))
    files = [Path(image), Path(label)]
    if not files[1].is_file() and (files[0].parent / label).is_file():
        files[1] = files[0].parent / label
    for path in files:
        if not path.is_file():
            raise UserError(f"--DATASET_PATH {root}: {path} does not exist; give scene.tif,label.tif")
    return Entry(files[0].stem, *files)
