"""One scene and one raster of labels for it: two rasters beside each other, or named one after the other."""

from pathlib import Path

from nets.errors import UserError
from utils.data.layouts.base import (
    LABEL_WORDS,
    Entry,
    Layout,
    Request,
    is_raster,
    rasters_in,
    role_free,
)
from utils.data.layouts.folders import read_folders
from utils.data.raster import label_info


def read_scene(request: Request) -> Layout | None:
    """Read `scene.tif,label.tif`, a folder with such pairs, or images/ and labels/ with one raster each."""
    if "," in str(request.root) and not request.root.exists():
        return _layout([_named(request.root)])
    if not request.root.is_dir():
        return None
    entries = _beside(rasters_in(request.root))
    if not entries:
        folders = read_folders(request)
        entries = folders.splits.get("train", []) if folders else []
        entries = entries if len(entries) == 1 else []
    return _layout(entries) if entries else None


def _layout(entries: list[Entry]) -> Layout:
    pairs = ", ".join(f"{entry.image} with {entry.label.name}" for entry in entries[:3])
    return Layout("scene", f"scene {pairs}", {"train": entries}, by_blocks=True)


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


def _beside(rasters: list[Path]) -> list[Entry]:
    """Pair the rasters of a folder: by words for labels in their names, or the one of two with one band."""
    labels = {path for path in rasters if _is_label_name(path)}
    by_name = {role_free(path.stem): path for path in labels}
    images = [path for path in rasters if path not in labels]
    entries = [
        Entry(path.stem, path, by_name[role_free(path.stem)])
        for path in images
        if role_free(path.stem) in by_name
    ]
    if entries:
        return entries
    if len(images) == len(labels) == 1:
        return [Entry(images[0].stem, images[0], labels.pop())]
    if len(rasters) == 2 and not labels and all(map(is_raster, rasters)):
        single = [path for path in rasters if label_info(path).bands == 1]
        if len(single) == 1:
            image = next(path for path in rasters if path != single[0])
            return [Entry(image.stem, image, single[0])]
    return []


def _is_label_name(path: Path) -> bool:
    words = path.stem.lower().replace("-", "_").replace(".", "_").replace(" ", "_").split("_")
    return any(word in LABEL_WORDS for word in words)
