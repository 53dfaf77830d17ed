"""Small training samples stay in memory once they are read."""

import numpy as np

from utils.data.labels import Classes
from utils.data.masks import read_mask
from utils.data.samples import Sample
from utils.data.source import read_source

# Of a larger sample the decoding of its pixels, not the opening of its files, takes the time.
_MOST_PIXELS = 2**16
# In each process that reads. What comes first stays: an epoch repeats nothing, so no later one is likelier.
_MOST_BYTES = 2**27

_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


class KeptSamples:
    """Image (C, H, W), valid (H, W) and mask of small samples, read once in the life of a process.

    Args:
        classes: Meaning of the label values.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        # The sample is kept as well: as long as it lives, no other one has its id.
        self._kept: dict[int, tuple[Sample, _Arrays]] = {}
        self._room = _MOST_BYTES

    def whole(self, sample: Sample) -> _Arrays | None:
        """Return the arrays of a small sample, which must not be changed; None of one that is not kept."""
        if id(sample) in self._kept:
            return self._kept[id(sample)][1]
        part = sample.window is not None or sample.avoid or sample.cells
        if part or sample.height * sample.width > _MOST_PIXELS or self._room <= 0:
            return None
        arrays = (*read_source(sample.source), read_mask(sample, self.classes))
        self._kept[id(sample)] = sample, arrays
        self._room -= sum(array.nbytes for array in arrays)
        return arrays

    def __reduce__(self) -> tuple:
        """Travel to another process without the arrays."""
        return KeptSamples, (self.classes,)
