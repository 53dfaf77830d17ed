"""Public data sets as their archives unpack: Pascal VOC, ADE20K, Cityscapes, CamVid, LoveDA, ISPRS."""

import re
from collections.abc import Sequence
from pathlib import Path

from nets.errors import UserError
from utils.data import class_lists
from utils.data.findings import WARNING, FileError, Finding, Report, of_files, told
from utils.data.layouts.base import (
    Entry,
    Layout,
    RasterFolder,
    Request,
    first_folder,
    pair_folders,
    rasters_in,
    read_lines,
    subfolders,
)
from utils.data.layouts.pairs import read_csv

# The tiles whose labels the contest gave to its participants; the rest was its test.
POTSDAM_TRAIN = (
    *("2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12"),
    *("6_7", "6_8", "6_9", "6_10", "6_11", "6_12", "7_7", "7_8", "7_9", "7_10", "7_11", "7_12"),
)
VAIHINGEN_TRAIN = ("1", "3", "5", "7", "11", "13", "15", "17", "21", "23", "26", "28", "30", "32", "34", "37")
_POTSDAM_IMAGES = ("2_Ortho_RGB", "4_Ortho_RGBIR", "3_Ortho_IRRG")
_POTSDAM_LABELS = (
    "5_Labels_all",
    "5_Labels_for_participants",
    "5_Labels_all_noBoundary",
    "5_Labels_for_participants_no_Boundary",
)
_VAIHINGEN_LABELS = (
    "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE",
    "gts_for_participants",
    "gts",
    "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE",
    "gts_eroded_for_participants",
)


def read_voc(request: Request) -> Layout | None:
    """Read Pascal VOC 2012; with SegmentationClassAug and trainaug.txt those are the training part."""
    base = _base(
        request.root, ("ImageSets/Segmentation", "JPEGImages"), ("VOC2012", "VOCdevkit/VOC2012", "VOC2007")
    )
    if base is None:
        return None
    lists = {path.stem: path for path in sorted((base / "ImageSets" / "Segmentation").glob("*.txt"))}
    augmented = request.label_dir in (None, "SegmentationClassAug") and "trainaug" in lists
    augmented = augmented and (base / "SegmentationClassAug").is_dir()
    chosen = ["SegmentationClassAug"] if augmented else []
    labels = [
        RasterFolder(_existing(base, name)) for name in (*chosen, request.label_dir or "SegmentationClass")
    ]
    images = RasterFolder(base / "JPEGImages")
    files = {**lists, "train": lists["trainaug"] if augmented else lists.get("train")}
    splits = {}
    for split in _wanted(request):
        if files.get(split) is not None:
            splits[split] = _listed(files[split], images, labels, request.report)
    title = f"Pascal VOC in {base}" + (" with SBD (trainaug)" if augmented else "")
    sources = {split: str(files[split]) for split in splits}
    return Layout("voc", title, splits, class_lists.VOC, sources=sources, available=tuple(sorted(lists)))


def read_ade20k(request: Request) -> Layout | None:
    """Read ADE20K of the scene parsing challenge."""
    base = _base(request.root, ("images/training", "annotations/training"), ("ADEChallengeData2016",))
    if base is None:
        return None
    names_file = base / "objectInfo150.txt"
    if not names_file.is_file() and not any((base / "images" / "training").glob("ADE_train_*")):
        return None
    folders = {"train": "training", "val": "validation"}
    pairs = {split: (base / "images" / name, base / "annotations" / name) for split, name in folders.items()}
    names = _ade20k_names(names_file) if names_file.is_file() else None
    return _of_folders("ade20k", f"ADE20K in {base}", pairs, class_lists.ade20k(names), request.report)


def read_cityscapes(request: Request) -> Layout | None:
    """Read Cityscapes: labelTrainIds where they are, else labelIds."""
    base = _base(request.root, ("leftImg8bit",), ("cityscapes",))
    labels = base and first_folder(base, (request.label_dir or "gtFine",))
    if base is None or labels is None:
        return None
    kind = labels.name
    trained = any(labels.rglob(f"*_{kind}_labelTrainIds.png"))
    suffix = f"_{kind}_label{'TrainIds' if trained else 'Ids'}.png"
    splits = {}
    # the labels of test are blank
    for split in _wanted(request):
        images = sorted((base / "leftImg8bit" / split).rglob("*_leftImg8bit.png"))
        splits[split] = []
        for path in images:
            with told(request.report):
                splits[split].append(_cityscapes_entry(path, base, labels, split, suffix))
    splits = {split: entries for split, entries in splits.items() if entries}
    meaning = class_lists.CITYSCAPES_TRAIN_IDS if trained else class_lists.CITYSCAPES_IDS
    available = tuple(subfolders(base / "leftImg8bit"))
    title = f"Cityscapes in {base}, {kind} {'labelTrainIds' if trained else 'labelIds'}"
    return Layout("cityscapes", title, splits, meaning, available=available)


def read_camvid(request: Request) -> Layout | None:
    """Read CamVid as SegNet ships it: lists of two paths that start with /SegNet/CamVid/."""
    base = _base(request.root, ("trainannot", "train"), ("CamVid",))
    layout = base and read_csv(request._replace(root=base))
    if not layout:
        return None
    return Layout("camvid", f"CamVid as SegNet ships it in {base}", layout.splits, class_lists.CAMVID)


def read_loveda(request: Request) -> Layout | None:
    """Read LoveDA: Train and Val with Rural and Urban; its Test has no labels."""
    base = _base(request.root, ("Train",), ("LoveDA", "loveda"))
    splits: dict[str, list[Entry]] = {}
    findings: list[Finding] = []
    for split, name in (("train", "Train"), ("val", "Val"), ("test", "Test")):
        for place in ("Rural", "Urban"):
            folder = (base or request.root) / name / place
            images, labels = folder / "images_png", folder / (request.label_dir or "masks_png")
            if images.is_dir() and labels.is_dir():
                entries, alone = pair_folders(images, labels, request.report)
                findings += alone
                named = [entry._replace(name=f"{place}/{entry.name}") for entry in entries]
                splits.setdefault(split, []).extend(named)
    if "train" not in splits:
        return None
    return Layout("loveda", f"LoveDA in {base}", splits, class_lists.LOVEDA, findings=tuple(findings))


def read_potsdam(request: Request) -> Layout | None:
    """Read ISPRS Potsdam: the ortho photos of one kind with the colour labels."""
    root = request.root
    given = root if root.name in _POTSDAM_IMAGES else None
    base = root.parent if given else _base(root, (), ("Potsdam", "potsdam"), _POTSDAM_IMAGES) or root
    images = given or first_folder(base, _POTSDAM_IMAGES)
    labels = first_folder(base, (request.label_dir,) if request.label_dir else _POTSDAM_LABELS)
    pattern = re.compile(r"top_potsdam_(\d+_\d+)_")
    return _isprs("potsdam", images, labels, pattern, POTSDAM_TRAIN)


def read_vaihingen(request: Request) -> Layout | None:
    """Read ISPRS Vaihingen: top/ with the colour labels."""
    base = _base(request.root, ("top",), ("Vaihingen", "vaihingen", "ISPRS_semantic_labeling_Vaihingen"))
    if base is None:
        return None
    wanted = (request.label_dir,) if request.label_dir else _VAIHINGEN_LABELS
    labels = first_folder(base, wanted) or first_folder(base.parent, wanted)
    return _isprs("vaihingen", base / "top", labels, re.compile(r"area(\d+)"), VAIHINGEN_TRAIN)


def _isprs(
    name: str, images: Path | None, labels: Path | None, pattern: re.Pattern, train: Sequence[str]
) -> Layout | None:
    """Pair the tiles of two folders by their numbers."""
    if images is None or labels is None:
        return None
    found = [
        {match.group(1): path for path in rasters_in(folder) if (match := pattern.search(path.name))}
        for folder in (images, labels)
    ]
    tiles = [tile for tile in found[0] if tile in found[1]]
    if not tiles:
        return None
    splits: dict[str, list[Entry]] = {"train": [], "test": []}
    for tile in sorted(tiles, key=lambda text: [int(part) for part in text.split("_")]):
        split = "train" if tile in train else "test"
        splits[split].append(Entry(found[0][tile].stem, found[0][tile], found[1][tile]))
    if not splits["train"]:
        splits = {"train": splits["test"]}  # some tiles of one's own choice
    splits = {split: entries for split, entries in splits.items() if entries}
    left = [path for tile, path in found[0].items() if tile not in found[1]]
    text = f"{len(left)} tiles of {images} have no label and are left out"
    findings = (Finding(WARNING, "images have no label", text, "", of_files(left)),) if left else ()
    title = f"ISPRS {name.capitalize()}, {images} with {labels.name}"
    return Layout(name, title, splits, class_lists.ISPRS, findings=findings)


def _base(root: Path, needed: Sequence[str], below: Sequence[str], any_of: Sequence[str] = ()) -> Path | None:
    """Return the folder, at or below the root, that has all `needed` folders and one of `any_of`."""
    for folder in (root, *(root / name for name in below)):
        whole = all((folder / name).is_dir() for name in needed)
        if whole and (not any_of or any((folder / name).is_dir() for name in any_of)):
            return folder
    return None


def _wanted(request: Request) -> tuple[str, ...]:
    """Return the splits to read: train too, from which a missing val is taken."""
    return tuple(dict.fromkeys(("train", "val", *(request.splits or ()))))


def _existing(base: Path, name: str) -> Path:
    if not (base / name).is_dir():
        raise UserError(f"{base} has no folder {name}; unpack it, or name another with --LABEL_DIR")
    return base / name


def _listed(path: Path, images: RasterFolder, labels: Sequence[RasterFolder], report: Report) -> list[Entry]:
    entries = []
    for line in read_lines(path):
        name = line.split()[0]
        folder = next((folder for folder in labels if folder.has(name)), labels[-1])
        with told(report):
            entries.append(Entry(name, images.find(name, "image", path), folder.find(name, "label", path)))
    return entries


def _of_folders(
    name: str, title: str, pairs: dict, meaning: class_lists.ClassesFile, report: Report
) -> Layout:
    splits, findings = {}, []
    for split, (images, labels) in pairs.items():
        if images.is_dir() and labels.is_dir():
            splits[split], alone = pair_folders(images, labels, report)
            findings += alone
    return Layout(name, title, splits, meaning, findings=tuple(findings))


def _cityscapes_entry(path: Path, base: Path, labels: Path, split: str, suffix: str) -> Entry:
    stem = path.name.removesuffix("_leftImg8bit.png")
    town = path.parent.relative_to(base / "leftImg8bit" / split)
    label = labels / split / town / f"{stem}{suffix}"
    if not label.is_file():
        text = f"{path} has no label {label}; unpack the labels, or name their folder with --LABEL_DIR"
        raise FileError(text, "label missing", path)
    return Entry(f"{town.as_posix()}/{stem}", path, label)


def _ade20k_names(path: Path) -> tuple[str, ...] | None:
    """Return the first word of each of the 150 classes, all words where the first is taken."""
    names: list[str] = []
    for line in read_lines(path)[1:]:
        words = line.split("\t")[-1]
        first = re.split(r"[;,]", words)[0].strip()
        names.append(words.strip() if first in names else first)
    return tuple(names) if len(set(names)) == 150 else None
