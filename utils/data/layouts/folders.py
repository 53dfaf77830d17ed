"""Pairs of folders: images/train with masks/train, train/images with train/masks, images with masks."""

from collections.abc import Iterator
from pathlib import Path

from utils.data.findings import Finding
from utils.data.layouts.base import (
    SPLITS,
    Entry,
    Layout,
    RasterFolder,
    Request,
    first_folder,
    is_raster,
    pair_folders,
    subfolders,
)
from utils.data.layouts.beside import pairs_beside

IMAGE_FOLDERS = ("images", "img_dir", "image", "imgs", "img", "JPEGImages", "image_dir", "rgb", "tiles", "x")
LABEL_FOLDERS = (
    *("labels", "ann_dir", "masks", "annotations", "label", "mask", "annotation", "anns", "ann", "gt", "gts"),
    *("groundtruth", "ground_truth", "targets", "target", "segmentation", "segmentations", "label_dir"),
    *("SegmentationClassPNG", "SegmentationClass", "SegmentationClassRaw", "mask_dir", "y"),
)
# train/ with train_labels/ and its relatives
LABEL_ENDINGS = ("_labels", "_label", "_masks", "_mask", "annot", "_annot", "_annotations", "_gt", "_lbl")

Pair = tuple[Path, Path]


def read_folders(request: Request) -> Layout | None:
    """Read image folders with the label folders beside them, in whichever order they are nested."""
    names = LABEL_FOLDERS if request.label_dir is None else (request.label_dir,)
    found = _find(request.root, names)
    if not found:
        return _mixed(request.root)
    splits: dict[str, list[Entry]] = {}
    findings: list[Finding] = []
    sources = {}
    for split, (images, labels) in found.items():
        splits[split], alone = pair_folders(images, labels, request.report)
        findings += alone
        sources[split] = str(labels)
    pairs = [
        f"{_below(images, request.root)} + {_below(labels, request.root)}"
        for images, labels in found.values()
    ]
    return Layout("folders", f"folders {', '.join(pairs)}", splits, findings=tuple(findings), sources=sources)


def _mixed(root: Path) -> Layout | None:
    """Read SPLIT folders in which images and labels stand beside each other."""
    folders = {split: first_folder(root, spellings) for split, spellings in SPLITS.items()}
    splits = {split: pairs_beside(folder) for split, folder in folders.items() if folder}
    splits = {split: entries for split, entries in splits.items() if entries}
    title = f"images and labels beside each other in {', '.join(str(folders[split]) for split in splits)}"
    return Layout("folders", title, splits) if "train" in splits else None


def _find(root: Path, labels: tuple[str, ...]) -> dict[str, Pair]:
    """Return split -> (images, labels); folders without splits are all training."""
    for search in (_split_inside, _split_outside, _split_suffixed):
        found = dict(search(root, labels))
        if "train" in found:
            return found
    pair = _pair(root, labels)
    return {"train": pair} if pair else found


def _split_inside(root: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Pair]]:
    """Find images/SPLIT and labels/SPLIT."""
    folders = subfolders(root)
    images = [folders[name.lower()] for name in IMAGE_FOLDERS if name.lower() in folders]
    labels = [folders[name.lower()] for name in names if name.lower() in folders]
    for split, spellings in SPLITS.items():
        image = next((path for folder in images if (path := first_folder(folder, spellings))), None)
        label = next((path for folder in labels if (path := first_folder(folder, spellings))), None)
        if image and label and _has_rasters(image) and _has_rasters(label):
            yield split, (image, label)


def _split_outside(root: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Pair]]:
    """Find SPLIT/images and SPLIT/labels."""
    for split, spellings in SPLITS.items():
        folder = first_folder(root, spellings)
        pair = _pair(folder, names) if folder else None
        if pair:
            yield split, pair


def _split_suffixed(root: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Pair]]:
    """Find SPLIT and SPLIT_labels."""
    endings = LABEL_ENDINGS if names is LABEL_FOLDERS else names
    for split, spellings in SPLITS.items():
        images = first_folder(root, spellings)
        labels = first_folder(root, (f"{spelling}{ending}" for spelling in spellings for ending in endings))
        if images and labels and _has_rasters(images) and _has_rasters(labels):
            yield split, (images, labels)


def _pair(folder: Path, names: tuple[str, ...]) -> Pair | None:
    images, labels = first_folder(folder, IMAGE_FOLDERS), first_folder(folder, names)
    if images and labels and images != labels and _has_rasters(images) and _has_rasters(labels):
        return images, labels
    return None


def _has_rasters(folder: Path) -> bool:
    """Tell whether a folder or one below it holds a raster."""
    return any(is_raster(path) for path in folder.iterdir()) or bool(RasterFolder(folder).by_stem)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
