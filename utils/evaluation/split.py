"""A checkpoint against one split of a data set: do they fit, and what is written about the result."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from nets.errors import UserError
from utils.data.band_choice import TrainedBands, is_placeholder
from utils.data.bands import rgb_bands
from utils.data.classes_file import find_classes_file, read_classes_json
from utils.data.dataset import SegmentationDataset
from utils.data.labels import IGNORE, Classes
from utils.data.layout import DatasetInfo, Reading, reading_of, scan_dataset
from utils.evaluation.boundary import BoundaryIoU
from utils.evaluation.metrics import ConfusionMatrix, Metrics
from utils.evaluation.overlays import overlay, preview, side_by_side
from utils.evaluation.plots import draw_confusion
from utils.evaluation.report import write_confusion, write_images, write_metrics
from utils.files import make_folder
from utils.inference.messages import classes_line
from utils.inference.writing import write_png


def open_split(
    root: str | Path,
    split: str,
    classes: Classes,
    bands: TrainedBands,
    reading: Reading | None = None,
) -> DatasetInfo:
    """Scan one split of a data set as the checkpoint sees it.

    Args:
        root: folder of the data set.
        split: name of a split, "all" for everything.
        classes: the checkpoint's, whose label table decides what the label values mean.
        bands: the checkpoint's bands, which are taken of the images.
        reading: layout, labels, and what training held back.

    Returns:
        The data set with the checkpoint's band names where it has some. Its notices tell what differs from
        the checkpoint without making the comparison void.

    Raises:
        UserError: no such split, other bands, another number of classes, label values the checkpoint lacks.
    """
    root, reading = Path(root), reading or Reading()
    path = find_classes_file(root, reading.label_dir)
    notices = compare_classes(path, classes) if path else []
    dataset = scan_dataset(root, splits=(split,), classes=classes, choice=bands.choose, reading=reading)
    theirs = dataset.band_names
    ours = tuple(map(_either, bands.names or theirs, theirs))
    if any(not _alike(one, other) for one, other in zip(ours, theirs, strict=True)):
        notices.append(
            f"the images name their bands {', '.join(theirs)}, the checkpoint {', '.join(ours)}: "
            "check that the order is the same"
        )
    return replace(dataset, remarks=(*dataset.remarks, *notices), band_names=ours)


def reading_as_trained(options: argparse.Namespace, trained: Mapping[str, object]) -> Reading:
    """Return how to read the data: by the flags that are given, else as the run of the checkpoint did.

    Args:
        options: flags of evaluate.py.
        trained: flags of the run, empty where the checkpoint has none. What the run held back follows from
            its seed. Its label map is in the checkpoint's label table, its bands are in the checkpoint.
    """
    names = ("DATASET_FORMAT", "LABEL_DIR", "TASK", "EXTRA_IMAGES", "VAL_FRACTION", "SEED")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return reading_of({**trained, **given, "LABEL_MAP": options.LABEL_MAP, "BAND_INDEX": None})


def compare_classes(path: Path, classes: Classes) -> list[str]:
    """Return a notice where a classes.json uses other names; another number of classes is a UserError."""
    names = read_classes_json(path).names if path.is_file() else None
    if names is None or names == classes.names[: len(names)]:  # the network may have spare classes
        return []
    theirs, ours = ", ".join(names), ", ".join(classes.names)
    if len(names) != classes.num_classes:
        raise UserError(
            f"{path} names {len(names)} classes ({theirs}), the checkpoint {classes.num_classes} ({ours}); "
            "use a checkpoint or a data set with the same classes"
        )
    return [f"{path} names the classes {theirs}; the checkpoint's names are used: {ours}"]


def _either(name: str | None, other: str) -> str:
    return name or other


def _alike(name: str, other: str) -> bool:
    """Return whether two band names may mean the same band."""
    return is_placeholder(name) or is_placeholder(other) or name.casefold() == other.casefold()


def introduction(dataset: DatasetInfo, split: str, device: str) -> str:
    """Return lines that say what is about to be measured, and with what."""
    classes = dataset.classes
    lines = [
        f"device:  {device}",
        f"images:  {len(dataset.splits[split])} of the split {split} in {dataset.root}",
        f"layout:  {dataset.found}",
        f"bands:   {dataset.bands} ({', '.join(dataset.band_names)})",
        classes_line(classes),
        *(f"notice:  {notice}" for notice in dataset.notices),
    ]
    return "\n".join(lines)


def output_folder(given: str | None, beside: Path, split: str) -> Path:
    """Make the folder of the results: the given one, or `evaluation_<split>` in the folder `beside`."""
    default = beside / f"evaluation_{split.replace('/', '_')}"
    output = Path(given) if given else default
    if output.exists() and not output.is_dir():
        raise UserError(f"--OUTPUT {output} is a file; give a folder, it is made where it does not exist")
    make_folder(output, "--OUTPUT")
    return output


def write_results(
    output: Path,
    confusion: ConfusionMatrix,
    images: SegmentationDataset,
    scores: Sequence[Metrics],
    boundary: BoundaryIoU | None = None,
    scenes: Mapping[str, Metrics] | None = None,
) -> None:
    """Write metrics.csv, confusion.csv, confusion.png and per_image.csv into a folder.

    Where the images are blocks of scenes, per_scene.csv has the scores of each scene.
    """
    classes = images.classes.names
    write_metrics(confusion.compute(), classes, output / "metrics.csv", boundary)
    write_confusion(confusion.matrix, classes, output / "confusion.csv")
    write_images([sample.name for sample in images.samples], scores, classes, output / "per_image.csv")
    if scenes:
        write_images(list(scenes), list(scenes.values()), classes, output / "per_scene.csv", "scene")
    draw_confusion(confusion.matrix, classes, output / "confusion.png")


def overlay_writer(
    folder: Path, classes: Classes, band_names: Sequence[str | None]
) -> Callable[[dict, Tensor], None]:
    """Return a function that writes the class colours of a batch over its images, a PNG for each."""
    make_folder(folder, "--SHOW_DIR")

    def write(batch: dict, predictions: Tensor) -> None:
        for image, valid, name, ids in zip(
            batch["image"], batch["valid"], batch["name"], predictions.cpu().numpy(), strict=True
        ):
            image, valid = np.asarray(image), np.asarray(valid)
            picture = preview(image, valid, rgb_bands(len(image), band_names))
            drawn = overlay(picture, np.where(valid, ids, IGNORE), classes.colors)
            write_png(folder / f"{name.replace('/', '_')}.png", drawn)

    return write


def worst_images(scores: Sequence[Metrics], count: int) -> list[int]:
    """Return the indices of the `count` images with the lowest mIoU, worst first; unlabelled ones never."""
    labelled = [index for index, score in enumerate(scores) if sum(score.pixels)]
    return sorted(labelled, key=lambda index: scores[index].mIoU)[:count]


def draw_worst(
    output: Path,
    classify: Callable[[dict], np.ndarray],
    images: SegmentationDataset,
    scores: Sequence[Metrics],
    count: int,
    band_names: Sequence[str | None] = (),
) -> Iterator[Path]:
    """Draw the worst images beside their truth, and yield the pictures written.

    `classify` maps an item of `images` to class ids (H, W), or of several labels (K, H, W).

    Pictures of an earlier evaluation in the same folder are removed. Pixels that the prediction leaves out
    are not compared.
    """
    for old in output.glob("worst_*.png"):
        old.unlink()
    for rank, index in enumerate(worst_images(scores, count), start=1):
        item = images[index]
        image, valid, name = item["image"], item["valid"], item["name"]
        prediction = classify(item)
        path = output / f"worst_{rank:02d}_{name.replace('/', '_')}.png"
        picture = preview(image, valid, rgb_bands(len(image), band_names))
        title = f"{name}   mIoU {scores[index].mIoU:.4f}"
        mask = np.where(prediction == IGNORE, IGNORE, item["mask"])
        side_by_side(picture, mask, prediction, images.classes, path, title=title)
        yield path
