"""What the predict programs say before and after their work."""

from collections.abc import Sequence
from pathlib import Path

from utils.data.band_choice import TrainedBands
from utils.data.labels import Classes
from utils.inference.augment import passes
from utils.inference.class_map import ClassTotals
from utils.inference.inputs import Jobs


def introduction(
    bands: TrainedBands,
    classes: Classes,
    device: str,
    work: Jobs,
    augmentations: Sequence[str | float] | None = None,
) -> str:
    """Return lines that say what is about to be predicted, and with what."""
    lines = [
        f"device:  {device}",
        f"bands:   {bands.describe()}",
        classes_line(classes),
        *passes_line(augmentations),
        *work.notices,
        *(f"left out: {reason}" for reason in work.failures.values()),
    ]
    return "\n".join(lines)


def classes_line(classes: Classes) -> str:
    """Return a line with the names of the classes."""
    several = ", of which a pixel can have several" if classes.multilabel else ""
    return f"classes: {classes.num_classes} ({', '.join(classes.names)}){several}"


def passes_line(augmentations: Sequence[str | float] | None) -> list[str]:
    """Return a line with the number of passes, none where the images are predicted as they are."""
    count = len(passes(augmentations or ()))
    return [f"passes:  {count} of each image, whose mean counts"] if count > 1 else []


def conclusion(totals: ClassTotals, done: int, output: Path) -> str:
    """Return lines with the share of each class and the place of the results."""
    what = "1 image" if done == 1 else f"{done} images"
    return f"share of the valid pixels of {what}:\n{totals.table()}\nresults are in {output}"
