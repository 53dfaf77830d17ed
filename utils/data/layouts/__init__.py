"""Layouts of data sets that are read in place: one reader each, in one table."""

from collections.abc import Sequence
from pathlib import Path

from nets.errors import UserError
from utils.data.layouts.base import Layout, Reader, Request
from utils.data.layouts.folders import read_folders
from utils.data.layouts.known import (
    read_ade20k,
    read_camvid,
    read_cityscapes,
    read_loveda,
    read_potsdam,
    read_vaihingen,
    read_voc,
)
from utils.data.layouts.lists import read_layout, read_lists, require_dataset
from utils.data.layouts.pairs import read_csv
from utils.data.layouts.scene import read_scene

__all__ = ["FORMATS", "Layout", "Request", "find_layout", "read_layout"]

# Name -> its reader and what it looks for. `auto` takes the first that fits, so the special ones come first.
FORMATS: dict[str, tuple[Reader, str]] = {
    "lists": (read_lists, "annotations/train.txt, images/, labels/"),
    "voc": (read_voc, "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/"),
    "ade20k": (read_ade20k, "images/training/, annotations/training/, objectInfo150.txt"),
    "cityscapes": (read_cityscapes, "leftImg8bit/train/TOWN/, gtFine/train/TOWN/"),
    "camvid": (read_camvid, "train.txt of two paths per line, train/, trainannot/"),
    "loveda": (read_loveda, "Train/Rural/images_png/, Train/Rural/masks_png/"),
    "potsdam": (read_potsdam, "2_Ortho_RGB/, 5_Labels_all/"),
    "vaihingen": (read_vaihingen, "top/, gts_for_participants/"),
    "csv": (read_csv, "train.csv with the columns image and label"),
    "scene": (read_scene, "one scene and its label: scene.tif,label.tif, or a folder with both"),
    "folders": (read_folders, "images/train/ and masks/train/, or images/ and masks/"),
}


# Layouts whose files say themselves where the labels are.
_OWN_LABELS = ("ade20k", "camvid", "csv")


def find_layout(request: Request, name: str = "auto") -> Layout:
    """Read a data set in the layout of that name, or in the first one that fits.

    Raises:
        UserError: The data set is not laid out like that, or in no way that is known.
    """
    if name != "auto":
        reader, wanted = FORMATS[name]
        layout = reader(request)
        if layout is None:
            raise UserError(
                f"{request.root} is not laid out as --DATASET_FORMAT {name} ({wanted}); "
                "use auto or another format"
            )
    else:
        layout = _recognise(request)
    if request.label_dir is not None and layout.format in _OWN_LABELS:
        raise UserError(
            f"--LABEL_DIR {request.label_dir}: {request.root} ({layout.format}) has one set of labels; "
            "leave it out"
        )
    return layout


def _recognise(request: Request) -> Layout:
    listed = read_lists(request)
    if listed is not None and all(split in _offered(listed) for split in request.wanted):
        return listed
    for key, (reader, _) in FORMATS.items():
        layout = reader(request) if key != "lists" else None
        # Beside lists that lack this split, folders are a set of their own only if they hold one scene.
        if layout and layout.splits and (listed is None or key != "folders" or _one_pair(layout)):
            return layout
    if listed is None:
        require_dataset(request.root)
    if request.label_dir is not None and not (request.root / request.label_dir).is_dir():
        raise UserError(f"--LABEL_DIR {request.label_dir}: {request.root} has no such folder")
    if request.splits and listed is not None:
        missing = next(split for split in request.splits if split not in _offered(listed))
        raise missing_split(missing, request.root / "annotations", _offered(listed))
    read_layout(request.root, request.wanted, request.label_dir)  # says what is missing
    raise AssertionError("a list that does not exist was read")


def _offered(layout: Layout) -> tuple[str, ...]:
    """Return the splits that can be asked for; a part of train may be held back as val."""
    held_back = "train" in layout.available and "val" not in layout.available
    return (*layout.available, "val") if held_back else layout.available


def missing_split(split: str, place: Path, available: Sequence[str]) -> UserError:
    """Return the error for a split that a data set does not have."""
    return UserError(f"--SPLIT {split} is given, {place} has {', '.join(available)}; choose one of them")


def _one_pair(layout: Layout) -> bool:
    return [len(entries) for entries in layout.splits.values()] == [1]
