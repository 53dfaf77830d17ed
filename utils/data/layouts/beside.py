"""Images and labels in one folder, told apart by their names."""

from pathlib import Path

from utils.data.layouts.base import LABEL_WORDS, Entry, is_raster, rasters_in, role_free
from utils.data.raster import label_info


def pairs_beside(folder: Path) -> list[Entry]:
    """Pair the rasters of a folder: by words for labels in their names, or the one of two with one band."""
    rasters = rasters_in(folder)
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
