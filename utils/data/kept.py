"""Training samples that stay in memory, decoded, once a process has read them: all readers share them."""

import math
import mmap
import multiprocessing.context
import multiprocessing.reduction
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nets.errors import UserError
from utils.data.geometry import MOST_BYTE_BANDS
from utils.data.labels import Classes
from utils.data.masks import read_mask
from utils.data.samples import Sample
from utils.data.source import read_source
from utils.data.window import Window, slices
from utils.host_memory import free_memory

# Where less than this is free nothing more is kept, bytes.
LEAST_FREE = 2**30
# A process looks for it anew after so many bytes.
_WATCHED = 2**25
# What is known of a sample: not read yet; kept, every pixel valid; kept; not what the data set promised.
_UNREAD, _ALL_VALID, _KEPT, _ODD = range(4)


class Kept(NamedTuple):
    """A whole sample; the arrays must not be changed.

    Attributes:
        image: (C, H, W) in its own dtype.
        valid: (H, W); None where every pixel is valid.
        mask: (H, W), in the smallest signed dtype that holds the class ids.
    """

    image: np.ndarray
    valid: np.ndarray | None
    mask: np.ndarray

    def cut(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of a window of image and valid."""
        rows, columns = slices(window)
        image = self.image[:, rows, columns].copy("K")
        valid = np.ones(window[2:], bool) if self.valid is None else self.valid[rows, columns].copy()
        return image, valid


class KeptSamples:
    """Decoded samples in memory that all processes share which are started with this object.

    Each sample has a place of its own from the start, the first ones as many as there is room for; memory is
    taken when it is filled. Where two processes fill it at once, both write the same.

    Args:
        samples: All samples; parts of files and scenes are not kept.
        classes: Meaning of the label values.
        bands: Bands of every image.
        dtype: Of the images; one of another dtype is not kept.
        most_bytes: Room for image, valid and mask of all.
    """

    def __init__(
        self, samples: Sequence[Sample], classes: Classes, bands: int, dtype: str, most_bytes: int
    ) -> None:
        self.classes = classes
        self.bands = bands
        self.dtype = np.dtype(dtype)
        self.mask_dtype = np.dtype(np.int8 if classes.num_classes <= 127 else np.int16)
        self.planes = (classes.num_classes,) if classes.multilabel else ()  # of a mask
        tiles = dict.fromkeys(sample for sample in samples if _is_tile(sample))
        self.wanted = len(tiles)
        self.places: dict[Sample, tuple[int, int]] = {}  # number and first byte
        start = _whole_pages(len(tiles))  # the first bytes say what is known of each
        for number, sample in enumerate(tiles):
            end = start + _whole_pages(self._bytes_per_pixel * sample.height * sample.width)
            if end <= most_bytes:
                self.places[sample], start = (number, start), end
        self._memory = SharedMemory(max(1, start))
        self._unwatched = _WATCHED

    @property
    def _bytes_per_pixel(self) -> int:
        return self.bands * self.dtype.itemsize + math.prod(self.planes) * self.mask_dtype.itemsize + 1

    @property
    def nbytes(self) -> int:
        """Bytes that all together take."""
        return self._memory.size

    def whole(self, sample: Sample) -> Kept | None:
        """Return a sample, which is read if it has to be; None of one that is not kept."""
        if sample not in self.places:
            return None
        number, start = self.places[sample]
        known = self._memory.bytes
        if known[number] == _UNREAD:
            if not self._memory_is_free(sample):
                return None
            known[number] = self._fill(sample, start)  # written last: now others find it
        if known[number] == _ODD:
            return None
        image, valid, mask = self._arrays(sample, start)
        return Kept(image, None if known[number] == _ALL_VALID else valid, mask)

    def _memory_is_free(self, sample: Sample) -> bool:
        """Look now and then whether other programs need the memory."""
        self._unwatched += self._bytes_per_pixel * sample.height * sample.width
        if self._unwatched > _WATCHED:
            free = free_memory()
            if free is not None and free < LEAST_FREE:
                return False
            self._unwatched = 0
        return True

    def _fill(self, sample: Sample, start: int) -> int:
        """Read a sample into its place and return what is known of it then."""
        try:
            image, valid = read_source(sample.source)
            mask = read_mask(sample, self.classes)
        except UserError:
            return _ODD  # maybe a window of it is better
        targets = self._arrays(sample, start)
        if (image.dtype, image.shape, mask.shape) != (self.dtype, targets[0].shape, targets[2].shape):
            return _ODD
        complete = bool(valid.all())
        for target, array in zip(targets, (image, valid, mask), strict=True):
            if array is not valid or not complete:  # a page that is never written takes no memory
                target[:] = array
        return _ALL_VALID if complete else _KEPT

    def _arrays(self, sample: Sample, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the place of a sample as image, valid and mask."""
        size = sample.height, sample.width
        # Bytes stand as they are decoded and resized: the bands of a pixel together.
        together = self.dtype == np.uint8 and self.bands <= MOST_BYTE_BANDS
        shape = (*size, self.bands) if together else (self.bands, *size)
        image = self._memory.array(start, self.dtype, shape)
        start += image.nbytes
        mask = self._memory.array(start, self.mask_dtype, (*self.planes, *size))
        valid = self._memory.array(start + mask.nbytes, np.dtype(bool), size)
        return np.moveaxis(image, 2, 0) if together else image, valid, mask


class SharedMemory:
    """Zeros that a process shares with those it starts, where the system can; taken when they are written.

    Linux's files without a name: `/dev/shm`, which containers keep small, has no part in it. They go to
    processes of every start method. Elsewhere a process that does not come by a fork has its own zeros.
    """

    def __init__(self, size: int, file: int | None = None) -> None:
        self.size = size
        if file is None and hasattr(os, "memfd_create"):
            file = os.memfd_create("decoded samples")
            os.ftruncate(file, size)
        self._file = file
        self._map = mmap.mmap(-1 if file is None else file, size)
        self.bytes = np.frombuffer(self._map, np.uint8)

    def array(self, start: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return a part as an array."""
        return np.ndarray(shape, dtype, self._map, start)

    def __reduce__(self) -> tuple:
        """Travel to a process that is being started; anything else that unpickles it has its own zeros."""
        if self._file is None or multiprocessing.context.get_spawning_popen() is None:
            return SharedMemory, (self.size,)
        return _received, (self.size, multiprocessing.reduction.DupFd(self._file))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)


def _received(size: int, file: object) -> SharedMemory:
    return SharedMemory(size, file.detach())


def shared_with_workers() -> bool:
    """Return whether reading processes have one memory for all samples, and not one each."""
    return hasattr(os, "memfd_create")


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _is_tile(sample: Sample) -> bool:
    return sample.window is None and not sample.avoid and not sample.cells
