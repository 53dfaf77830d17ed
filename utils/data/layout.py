"""A data set on disk: everything about it is read and checked before training starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nets.errors import UserError
from utils.data.class_table import LabelScan, all_values, build_classes, check_values
from utils.data.classes_file import ClassesFile, find_classes_file, read_classes_json
from utils.data.dividing import Part, divide_scenes, whole_samples
from utils.data.held_back import hold_back_tiles
from utils.data.label_map import parse_label_map
from utils.data.label_scan import inspect
from utils.data.labels import DEFAULT_IGNORED, KINDS, Classes, Color
from utils.data.layouts import Layout, Request, find_layout, missing_split, read_layout
from utils.data.layouts.base import Entry
from utils.data.layouts.folders import IMAGE_FOLDERS
from utils.data.mapped_classes import mapped_classes
from utils.data.raster import RasterInfo, read_palette
from utils.data.samples import Sample
from utils.data.threads import in_threads

__all__ = ["DatasetInfo", "Reading", "Sample", "in_threads", "read_layout", "scan_dataset"]

ALL = "all"


class Reading(NamedTuple):
    """How a data set is read: the flags of the same names.

    Attributes:
        format: Layout, "auto" recognises it.
        label_dir: Folder of the labels in place of the layout's own.
        label_map: What label values mean, as `label_map` parses it.
        val_fraction: What is held back where no validation list exists.
        seed: Start of that choice.
    """

    format: str = "auto"
    label_dir: str | None = None
    label_map: str | None = None
    val_fraction: float = 0.1
    seed: int = 0


def reading_of(flags: Mapping[str, object]) -> Reading:
    """Return how a run of these flags reads its data; flags it did not have keep their default."""
    known = {name: flags.get(name.upper()) for name in ("label_dir", "label_map", "val_fraction", "seed")}
    known["format"] = flags.get("DATASET_FORMAT")
    return Reading(**{name: value for name, value in known.items() if value is not None})


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that was checked.

    Attributes:
        root: Its folder.
        splits: The samples of each split, in the order of its list.
        classes: Names, colours and the meaning of label values.
        bands: Bands of every image.
        band_names: From the first image, else from `classes.json`, else band_1, band_2, ...
        dtype: numpy dtype that holds the values of every image.
        has_crs: All images of the first split carry a coordinate reference system.
        notices: Sentences that the user should read.
        label_counts: Pixels of each class (K), per split.
        value_pixels: Pixels of each label value, over all that was read.
        found: The layout and its splits in words.
    """

    root: Path
    splits: dict[str, tuple[Sample, ...]]
    classes: Classes
    bands: int
    band_names: tuple[str, ...]
    dtype: str
    has_crs: bool
    notices: tuple[str, ...] = ()
    label_counts: dict[str, np.ndarray] = field(default_factory=dict)
    value_pixels: dict[int, int] = field(default_factory=dict)
    found: str = ""

    @property
    def smallest_tile(self) -> tuple[int, int]:
        """Smallest height and smallest width in the first split: the largest crop that every image fills."""
        samples = next(iter(self.splits.values()))
        return min(sample.height for sample in samples), min(sample.width for sample in samples)


def scan_dataset(
    root: Path | str,
    *,
    num_classes: int | None = None,
    bands: int | None = None,
    splits: Sequence[str] | None = None,
    classes: Classes | None = None,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetInfo:
    """Read every list, image header and label of a data set once, and check that they fit together.

    Args:
        root: Folder of the data set, or "scene.tif,label.tif".
        num_classes: Number of classes asked for; None takes what the data say.
        bands: Number of bands asked for; None takes what the data say.
        splits: Splits to read; by default train and val, and test where it exists. "all" is everything.
        classes: Classes of a checkpoint, which the labels then must fit; None finds them in the data.
        reading: Layout, meaning of the labels, and what is held back for validation.
        workers: Threads that read; None takes the processors, at most eight.
        progress: Show a bar.

    Raises:
        UserError: The first thing that is wrong, with the file it is wrong in.
    """
    root, reading = Path(root), reading or Reading()
    layout, groups, by_blocks = _groups(root, splits, reading)
    file = _classes_file(root, layout, reading.label_dir)
    meaning = (file or layout.meaning) if classes is None else None
    saturated = bool(meaning and meaning.saturated) if classes is None else classes.kind == KINDS[2]
    entries = [entry for group in groups.values() for entry in group]
    look = partial(inspect, saturated=saturated, cells=by_blocks)
    found = list(in_threads(look, entries, workers, "reading labels" if progress else None))
    images, labels = [image for image, _ in found], [label for _, label in found]
    _check_bands(images, bands)
    palette = read_palette(entries[0].label)
    if classes is None:
        told = reading.label_map or (None if meaning else _class_table(root))
        rules = parse_label_map(told) if told else ()
        classes, notices = build_classes(meaning, labels, num_classes, palette, rules)
    else:
        classes, notices = _mapped_onto(classes, reading.label_map, labels, palette), []
    check_values(labels, classes)
    parts = iter([Part(entry, *both) for entry, both in zip(entries, found, strict=True)])
    by_split = {split: [next(parts) for _ in group] for split, group in groups.items()}
    info = DatasetInfo(
        root=root,
        splits={},
        classes=classes,
        bands=images[0].bands,
        band_names=_band_names(images[0], file),
        dtype=np.result_type(*{image.dtype for image in images}).name,
        has_crs=all(part.image.crs is not None for part in next(iter(by_split.values()))),
        notices=(*layout.notices, *notices, *_notices(groups, images)),
        value_pixels=all_values(labels),
    )
    return _with_samples(info, layout, by_split, by_blocks, splits, reading)


def _groups(
    root: Path, splits: Sequence[str] | None, reading: Reading
) -> tuple[Layout, dict[str, list[Entry]], bool]:
    """Return the layout, the files to read for each split, and whether scenes are to be divided by blocks."""
    everything = splits is not None and ALL in splits and not (root / "annotations" / f"{ALL}.txt").is_file()
    asked = tuple(splits) if splits is not None and not everything else None
    layout = find_layout(Request(root, reading.label_dir, asked), reading.format)
    groups = dict(layout.splits)
    if everything:
        return layout, {ALL: [entry for entries in groups.values() for entry in entries]}, False
    wanted = asked or ("train", "val", "test")
    divided = "val" not in (*groups, *layout.available) and bool({"train", "val"} & set(wanted))
    by_blocks = divided and (layout.by_blocks or len(groups.get("train", ())) == 1)
    if divided and not by_blocks and "train" in groups:
        total = len(groups["train"])
        kept, held = hold_back_tiles(groups["train"], reading.val_fraction, reading.seed)
        groups |= {"train": kept, "val": held}
        notice = (
            f"no validation list: {len(held)} of {total} training images are held back for it "
            f"(--VAL_FRACTION {reading.val_fraction:g}, --SEED {reading.seed})"
        )
        layout = replace(layout, notices=(*layout.notices, notice))
    if by_blocks:
        wanted = ("train", *wanted)
    for split in asked or ():
        if split not in groups and not (by_blocks and split == "val"):
            raise missing_split(split, root, (*(layout.available or groups), *(["val"] if divided else ())))
    return layout, {s: groups[s] for s in dict.fromkeys(wanted) if s in groups}, by_blocks


def _with_samples(
    info: DatasetInfo,
    layout: Layout,
    parts: dict[str, list[Part]],
    by_blocks: bool,
    splits: Sequence[str] | None,
    reading: Reading,
) -> DatasetInfo:
    """Fill in the samples of each split and their pixels per class."""
    samples, counts, notices = {}, {}, []
    for split, group in parts.items():
        if by_blocks and split == "train":
            divided = divide_scenes(group, info.classes, reading.val_fraction, reading.seed)
            samples |= divided.samples
            counts |= divided.counts
            notices.append(f"{divided.text} (--VAL_FRACTION {reading.val_fraction:g}, --SEED {reading.seed})")
        else:
            samples[split], counts[split] = whole_samples(group, info.classes)
    kept = {split: group for split, group in samples.items() if splits is None or split in splits}
    for split in kept:
        if not counts[split].any():
            source = layout.sources.get(split, f"{info.root}, {split}")
            raise UserError(
                f"{source}: every label pixel is ignored; allowed values are {info.classes.allowed}"
            )
    sizes = ", ".join(f"{split} {len(group)}" for split, group in kept.items())
    return replace(
        info,
        splits=kept,
        label_counts={split: counts[split] for split in kept},
        notices=(*info.notices, *notices),
        found=f"{layout.title} ({layout.format}): {sizes}",
    )


def _classes_file(root: Path, layout: Layout, label_dir: str | None) -> ClassesFile | None:
    """Read the `classes.json` of a data set; that of a scene stands beside it, or beside its folder."""
    path = find_classes_file(root, label_dir)
    if path is None and layout.format == "scene":
        folder = next(iter(layout.splits.values()))[0].image.parent
        around = [folder, *([folder.parent] if folder.name.lower() in IMAGE_FOLDERS else [])]
        path = next((found for place in around if (found := find_classes_file(place))), None)
    return read_classes_json(path) if path else None


def _class_table(root: Path) -> str | None:
    """Return the table of colours that some data sets bring along, name,r,g,b."""
    path = root / "class_dict.csv"
    return str(path) if path.is_file() else None


def _mapped_onto(
    classes: Classes, label_map: str | None, labels: Sequence[LabelScan], palette: dict[int, Color] | None
) -> Classes:
    """Return a checkpoint's classes for labels of other values, as a label map says."""
    if not label_map:
        return classes
    kind = "color" if labels[0].by_color else "number"
    ignored = () if labels[0].by_color else DEFAULT_IGNORED
    known = replace(classes, table={}, ignored=ignored, kind=kind)
    mapped = mapped_classes(
        known, parse_label_map(label_map), all_values(labels), palette, classes.num_classes
    )
    if mapped.num_classes > classes.num_classes:
        raise UserError(
            f"--LABEL_MAP names the class {mapped.names[classes.num_classes]}, the checkpoint has "
            f"{', '.join(classes.names)}; use these"
        )
    return mapped


def _check_bands(images: Sequence[RasterInfo], bands: int | None) -> None:
    first = images[0]
    for image in images:
        if image.bands != first.bands:
            raise UserError(
                f"{image.path} has {image.bands} bands, {first.path} has {first.bands}; "
                "all images of a data set have the same bands"
            )
    if bands is not None and bands != first.bands:
        alpha = " besides its alpha band, which is read as a mask" if first.has_alpha else ""
        raise UserError(
            f"{bands} bands were asked for, {first.path} has {first.bands}{alpha}; "
            f"give --BANDS {first.bands} or leave it out"
        )


def _notices(layout: dict[str, list[Entry]], images: Sequence[RasterInfo]) -> list[str]:
    notices = []
    for one, other in combinations(layout, 2):
        shared = {entry.image for entry in layout[one]} & {entry.image for entry in layout[other]}
        if shared:
            notices.append(f"{len(shared)} images are in both {one} and {other}: the scores will be too good")
    if any(image.has_alpha for image in images):
        notices.append("an alpha band is read as the mask of valid pixels, not as a band")
    dtypes = sorted({image.dtype for image in images})
    if len(dtypes) > 1:
        notices.append(f"images have different dtypes ({', '.join(dtypes)}): check that they share one scale")
    if len({image.band_names for image in images}) > 1:
        notices.append("images name their bands differently: check that the order is the same")
    return notices


def _band_names(image: RasterInfo, file: ClassesFile | None) -> tuple[str, ...]:
    listed = file.bands if file and file.bands and len(file.bands) == image.bands else None
    return tuple(
        name or (listed[index] if listed else f"band_{index + 1}")
        for index, name in enumerate(image.band_names)
    )
