"""Class ids of a sample's label, by window."""

import numpy as np

from nets.errors import UserError
from utils.data.labels import IGNORE, Classes, LabelValueError
from utils.data.raster import Window, read_label
from utils.data.samples import Sample
from utils.data.window import slices

# A label of fewer pixels is read whole where several of its windows are looked at.
SMALL_LABEL = 2**22


def read_mask(
    sample: Sample, classes: Classes, window: Window | None = None, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return class ids (h, w), int16; IGNORE where ignored, where `valid` says no, and without a label.

    Raises:
        UserError: The label cannot be read, or a valid pixel holds a value that is no class.
    """
    if sample.label is None:
        shape = window[2:] if window else (sample.height, sample.width)
        return np.full(shape, IGNORE, dtype=np.int16)
    return _encoded(sample, classes, *_values(sample, classes, window), valid)


def _values(sample: Sample, classes: Classes, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (h, w) that stand in the label, and where they count."""
    part = sample.inside(window)
    label, labelled = read_label(sample.label, part, class_values=classes.table)
    if sample.avoid:
        labelled &= sample.allowed(part or sample.part)
    return label, labelled


def _encoded(
    sample: Sample,
    classes: Classes,
    label: np.ndarray,
    labelled: np.ndarray,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    try:
        return classes.encode(label, labelled if valid is None else valid & labelled)
    except LabelValueError as error:
        raise UserError(f"{sample.label}: {error}") from error


class MaskWindows:
    """Windows of one sample's mask; a small PNG label is read once, another one whole at the second window.

    Args:
        sample: The sample.
        classes: Meaning of its label values.
        whole: The whole mask (H, W), where it is known.
    """

    def __init__(self, sample: Sample, classes: Classes, whole: np.ndarray | None = None) -> None:
        self.sample = sample
        self.classes = classes
        self.size = (sample.height, sample.width)
        self._whole = whole
        self._read: tuple[np.ndarray, np.ndarray] | None = None
        # Of a PNG all is decoded for any window.
        self._soon = sample.label is not None and sample.label.suffix.lower() == ".png"

    @property
    def whole(self) -> np.ndarray:
        """The whole mask (H, W)."""
        if self._whole is None:
            self._whole = read_mask(self.sample, self.classes)
        return self._whole

    def __getitem__(self, window: Window) -> np.ndarray:
        """Return the class ids of a window."""
        part = slices(window)
        if self._whole is not None:
            return self._whole[part]
        small = self.sample.height * self.sample.width <= SMALL_LABEL
        if self.sample.label is None or not (small and self._soon):
            self._soon = True
            return read_mask(self.sample, self.classes, window)
        if self._read is None:
            self._read = _values(self.sample, self.classes)
        label, labelled = self._read
        return _encoded(self.sample, self.classes, label[part], labelled[part])
