"""Class ids of a sample's label, by window."""

import numpy as np

from nets.errors import UserError
from utils.data.labels import IGNORE, Classes, LabelValueError
from utils.data.raster import Window, read_label
from utils.data.samples import Sample

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
    part = sample.inside(window)
    label, labelled = read_label(sample.label, part, class_values=classes.table)
    if sample.avoid:
        labelled &= sample.allowed(part or sample.part)
    try:
        return classes.encode(label, labelled if valid is None else valid & labelled)
    except LabelValueError as error:
        raise UserError(f"{sample.label}: {error}") from error


class MaskWindows:
    """Windows of one sample's mask; from the second on they come from memory where the label is small.

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
        self._asked = False

    @property
    def whole(self) -> np.ndarray:
        """The whole mask (H, W)."""
        if self._whole is None:
            self._whole = read_mask(self.sample, self.classes)
        return self._whole

    def __getitem__(self, window: Window) -> np.ndarray:
        """Return the class ids of a window."""
        small = self.sample.height * self.sample.width <= SMALL_LABEL
        if self._whole is None and not (small and self._asked):
            self._asked = True
            return read_mask(self.sample, self.classes, window)
        top, left, height, width = window
        return self.whole[top : top + height, left : left + width]
