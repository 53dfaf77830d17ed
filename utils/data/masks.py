"""Masks of a sample's label, by window: class ids (h, w), or (K, h, w) of 0 and 1 where bands are classes."""

import numpy as np
import torch

from nets.errors import UserError
from utils.data.band_labels import read_band_label
from utils.data.labels import IGNORE, Classes, LabelValueError
from utils.data.raster import Window, read_label
from utils.data.samples import Sample
from utils.data.window import slices

# A label of fewer pixels is read whole where several of its windows are looked at.
SMALL_LABEL = 2**22


def read_mask(
    sample: Sample, classes: Classes, window: Window | None = None, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return the mask, int16; IGNORE where ignored, where `valid` says no, and without a label.

    Raises:
        UserError: The label cannot be read, has other bands, or a valid pixel holds a value that is no class.
    """
    if sample.label is None:
        shape = window[2:] if window else (sample.height, sample.width)
        shape = (classes.num_classes, *shape) if classes.multilabel else shape
        return np.full(shape, IGNORE, dtype=np.int16)
    return _encoded(sample, classes, *_values(sample, classes, window), valid)


def _values(sample: Sample, classes: Classes, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that stand in the label, (h, w) or a plane per band, and where they count."""
    part = sample.inside(window)
    read = read_band_label if classes.multilabel else read_label
    label, labelled = read(sample.label, part, class_values=classes.table)
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


def shows(mask: np.ndarray, class_id: int) -> np.ndarray:
    """Return where (h, w) a mask shows a class."""
    return mask == class_id if mask.ndim == 2 else mask[class_id] == 1


def class_pixels(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the pixels of each class that a mask may show, and those that are labelled.

    Where bands are classes, to have none of them counts as one more.
    """
    if mask.ndim == 2:
        # The first count is of the pixels that are ignored.
        counts = torch.bincount(torch.from_numpy(mask).flatten() - IGNORE)[1:].numpy()
        return counts, int(counts.sum())
    present, labelled = mask == 1, (mask != IGNORE).any(axis=0)
    none = np.count_nonzero(labelled & ~present.any(axis=0))
    return np.append(present.sum(axis=(1, 2)), none), np.count_nonzero(labelled)


class MaskWindows:
    """Windows of one sample's mask; a small PNG label is read once, another one whole at the second window.

    Args:
        sample: The sample.
        classes: Meaning of its label values.
        whole: The whole mask in any signed dtype, where it is known; its windows are copied.
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
        """The whole mask."""
        if self._whole is None:
            self._whole = read_mask(self.sample, self.classes)
        return self._whole

    def __getitem__(self, window: Window) -> np.ndarray:
        """Return the mask of a window."""
        part = (..., *slices(window))
        if self._whole is not None:
            return self._whole[part].astype(np.int16)
        small = self.sample.height * self.sample.width <= SMALL_LABEL
        if self.sample.label is None or not (small and self._soon):
            self._soon = True
            return read_mask(self.sample, self.classes, window)
        if self._read is None:
            self._read = _values(self.sample, self.classes)
        label, labelled = self._read
        return _encoded(self.sample, self.classes, label[part], labelled[part])
