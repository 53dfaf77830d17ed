"""Write images with labels, and scan their tree, for the tests of layouts."""

import numpy as np

from tests.tiny_dataset import write_raster
from utils.data.layout import Reading
from utils.data.layout import scan_dataset as scan

RNG = np.random.default_rng(3)


def scan_dataset(root, splits=None, **reading):
    """Scan without a progress bar; the reading is given by keywords."""
    return scan(root, progress=False, splits=splits, reading=Reading(**reading))


def pair(image, label, values=(0, 1), size=16, colors=None):
    """Write an image and a label whose columns hold the values, or the colours."""
    write_raster(image, RNG.integers(0, 255, (3, size, size)).astype(np.uint8))
    if colors is not None:
        columns = np.array(colors, dtype=np.uint8)[np.arange(size) % len(colors)]
        write_raster(label, np.broadcast_to(columns.T[:, None], (3, size, size)).copy())
    else:
        row = np.array(values)[np.arange(size) % len(values)]
        write_raster(label, np.broadcast_to(row, (size, size)).astype(np.uint8))


def sizes(info):
    """Return split -> number of samples."""
    return {split: len(samples) for split, samples in info.splits.items()}
