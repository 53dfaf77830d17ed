"""A data set on disk: everything about it is read and checked before training starts."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.band_choice import Choice
from utils.data.checks import cheap_findings, check_bands, check_label_bands
from utils.data.class_sources import class_sources
from utils.data.class_table import LabelScan, all_values
from utils.data.dividing import Part, divide_scenes, whole_samples
from utils.data.extra_images import ExtraImages
from utils.data.findings import NOTE, WARNING, FileError, Finding, Report, attempt, stop, told
from utils.data.held_back import hold_back_tiles
from utils.data.image_bands import SourceBands, add_extra, check_number, choose_bands
from utils.data.labels import Classes
from utils.data.layouts import Layout, Request, find_layout, missing_split, read_layout
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo
from utils.data.samples import Sample
from utils.data.scanning import How, Looking
from utils.data.threads import in_threads

__all__ = ["DatasetInfo", "Reading", "Sample", "in_threads", "read_layout", "scan_dataset"]

ALL = "all"
ALPHA = "an alpha band is read as the mask of valid pixels, not as a band"


class Reading(NamedTuple):
    """How a data set is read: the flags of the same names.

    Attributes:
        format: Layout, "auto" recognises it.
        label_dir: Folder of the labels in place of the layout's own.
        label_map: What label values mean, as `label_map` parses it.
        band_index: Bands to take, as `band_choice` parses it.
        extra_images: Where the ancillary rasters lie.
        every_label: All labels are read first, however many there are.
        task: "multilabel" where the bands of the labels are classes.
        val_fraction: What is held back where no validation list exists.
        seed: Start of that choice.
    """

    format: str = "auto"
    label_dir: str | None = None
    label_map: str | None = None
    band_index: str | None = None
    extra_images: str | None = None
    every_label: bool = False
    task: str = "multiclass"
    val_fraction: float = 0.1
    seed: int = 0


def reading_of(flags: Mapping[str, object]) -> Reading:
    """Return how a run of these flags reads its data; flags it did not have keep their default."""
    known = {name: flags.get(name.upper()) for name in Reading._fields}
    known["format"] = flags.get("DATASET_FORMAT")
    # Crops are placed around classes only where it is known which image holds which class.
    known["every_label"] = flags.get("RARE_CLASS_SAMPLING") is not None
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
        sources: The bands that images and ancillary rasters have, of which these are taken.
        dtype: numpy dtype that holds the values of every image.
        has_crs: All images of the first split carry a coordinate reference system.
        remarks: Sentences on how the data are read.
        findings: What headers, names and label values say against the data; notes are for the doctor alone.
        label_counts: Pixels of each class (K), per split.
        labelled: Pixels (K) of which is known whether they are of a class, per split.
        value_pixels: Pixels of each label value, over all that was read.
        found: The layout and its splits in words.
        parts: Headers and label values of every file, per split, before anything is held back.
    """

    root: Path
    splits: dict[str, tuple[Sample, ...]]
    classes: Classes
    bands: int
    band_names: tuple[str, ...]
    dtype: str
    has_crs: bool
    remarks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    label_counts: dict[str, np.ndarray] = field(default_factory=dict)
    labelled: dict[str, np.ndarray] = field(default_factory=dict)
    value_pixels: dict[int, int] = field(default_factory=dict)
    found: str = ""
    sources: SourceBands | None = None
    parts: dict[str, list[Part]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that the user should read."""
        odd = (f"{WARNING}: {finding.text()}" for finding in self.findings if finding.severity != NOTE)
        return (*odd, *self.remarks)

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
    choice: Choice | None = None,
    splits: Sequence[str] | None = None,
    classes: Classes | None = None,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: bool = True,
    report: Report = stop,
) -> DatasetInfo:
    """Read every list, image header and label of a data set once, and check that they fit together.

    Args:
        root: Folder of the data set, or "scene.tif,label.tif".
        num_classes: Number of classes asked for; None takes what the data say.
        bands: Number of bands asked for; None takes what the data say.
        choice: Which bands a checkpoint takes; None follows the reading's `band_index`.
        splits: Splits to read; by default train and val, and test where it exists. "all" is everything.
        classes: Classes of a checkpoint, which the labels then must fit; None finds them in the data.
        reading: Layout, meaning of the labels, and what is held back for validation.
        workers: Threads that read; None takes the processors, at most eight.
        progress: Show a bar.
        report: Gets the mistakes of single files; what is left is read without them.

    Raises:
        UserError: A mistake in the flags, or nothing is left to be read.
    """
    root, reading = Path(root), reading or Reading()
    layout, groups, by_blocks = _groups(root, splits, reading, report)
    known = class_sources(root, layout, reading.label_dir, reading.label_map, reading.task, classes)
    some = known.complete and not reading.every_label
    how = How(known.saturated, by_blocks, some, reading.seed, known.by_bands)
    look = Looking(root, groups, how, workers, progress=progress)
    title = "reading labels" if progress else None
    parts = _inspected(groups, partial(attempt, look), workers, title, report)
    look.finish()
    parts = check_bands(check_label_bands(parts, classes, report), report)
    parts, sources = choose_bands(parts, known.file, choice, reading.band_index)
    check_number(parts, bands)
    every = [part for group in parts.values() for part in group]
    images, labels = [part.image for part in every], [part.label for part in every]
    classes, remarks = known.resolve(labels, num_classes, report)
    alpha = [ALPHA] if any(image.has_alpha for image in images) else []
    info = DatasetInfo(
        root=root,
        splits={},
        classes=classes,
        bands=images[0].bands,
        band_names=images[0].band_names,
        sources=sources,
        dtype=np.result_type(*{image.dtype for image in images}).name,
        has_crs=all(part.image.crs is not None for part in next(iter(parts.values()))),
        remarks=(*layout.notices, *look.notices, *remarks, *alpha),
        findings=layout.findings,
        value_pixels=all_values(labels),
        parts=parts,
    )
    return _with_samples(info, layout, by_blocks, splits, reading, report)


def _groups(
    root: Path, splits: Sequence[str] | None, reading: Reading, report: Report
) -> tuple[Layout, dict[str, list[Entry]], bool]:
    """Return the layout, the files to read for each split, and whether scenes are to be divided by blocks."""
    everything = splits is not None and ALL in splits and not (root / "annotations" / f"{ALL}.txt").is_file()
    asked = tuple(splits) if splits is not None and not everything else None
    layout = find_layout(Request(root, reading.label_dir, asked, report), reading.format)
    groups = add_extra(dict(layout.splits), ExtraImages(reading.extra_images, root))
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
    by_blocks: bool,
    splits: Sequence[str] | None,
    reading: Reading,
    report: Report,
) -> DatasetInfo:
    """Fill in the samples of each split and their pixels per class."""
    samples, counts, remarks = {}, {}, []
    for split, group in info.parts.items():
        samples[split], counts[split] = whole_samples(group, info.classes)
        if by_blocks and split == "train" and counts[split].any():
            with told(report):
                divided = divide_scenes(group, info.classes, reading.val_fraction, reading.seed)
                samples |= divided.samples
                counts |= divided.counts
                how = f"(--VAL_FRACTION {reading.val_fraction:g}, --SEED {reading.seed})"
                remarks.append(f"{divided.text} {how}")
    kept = {split: group for split, group in samples.items() if splits is None or split in splits}
    for split in kept:
        with told(report):
            _require_labels(counts[split], layout.sources.get(split, f"{info.root}, {split}"), info.classes)
    sizes = ", ".join(f"{split} {len(group)}" for split, group in kept.items())
    return replace(
        info,
        splits=kept,
        label_counts={split: counts[split][: info.classes.num_classes] for split in kept},
        labelled={split: info.classes.labelled(counts[split]) for split in kept},
        remarks=(*info.remarks, *remarks),
        findings=(*info.findings, *cheap_findings(info.parts, counts, info.classes)),
        found=f"{layout.title} ({layout.format}): {sizes}",
    )


def _inspected(
    groups: dict[str, list[Entry]],
    look: Callable[[Entry], tuple[RasterInfo, LabelScan] | FileError],
    workers: int | None,
    title: str | None,
    report: Report,
) -> dict[str, list[Part]]:
    """Look at all files; a split of which nothing is left is left out."""
    entries = [(split, entry) for split, group in groups.items() for entry in group]
    parts: dict[str, list[Part]] = {split: [] for split in groups}
    with closing(in_threads(look, [entry for _, entry in entries], workers, title)) as results:
        for (split, entry), result in zip(entries, results, strict=True):
            if isinstance(result, FileError):
                report(result)
            else:
                parts[split].append(Part(entry, *result))
    if not any(parts.values()):
        text = f"none of the {len(entries)} images can be read with its label"
        raise FileError(text, "nothing readable", entries[0][1].image.parent)
    return {split: group for split, group in parts.items() if group}


def _require_labels(counts: np.ndarray, source: str, classes: Classes) -> None:
    if not counts.any():
        text = f"{source}: every label pixel is ignored; allowed values are {classes.allowed}"
        raise FileError(text, "nothing labelled", source, f"allowed values are {classes.allowed}")
