"""Examine a data set, and spoil its files, for the tests of tools/check_dataset.py."""

import numpy as np

import tools.check_dataset as program
from tests.tiny_dataset import write_raster
from tools.check_report import examine
from utils.flags import DATA, HARDWARE
from utils.options import parse

RNG = np.random.default_rng(1)


def examined(root, *words):
    """Return the findings as kind -> (severity, text)."""
    options = parse("", (program.CHECK, DATA, HARDWARE), ["--DATASET_PATH", str(root), *words])
    _, _, findings = examine(options)
    assert all("\n" not in finding.line() for finding in findings)
    return {finding.kind: (finding.severity, finding.text(root)) for finding in findings}


def noise(size=16, bands=3, dtype=np.uint16, most=4000):
    """Return an image (C, H, W) of random values."""
    return RNG.integers(0, most, (bands, size, size)).astype(dtype)


def label(values=(0, 1, 2)):
    """Return a label (16, 16) with the values in stripes."""
    return np.resize(np.repeat(np.array(values, dtype=np.uint8), 2), (16, 16))


def relabel(root, values, splits="tv"):
    """Give all labels of the splits, by the first letter of their names, other values."""
    for path in sorted((root / "labels").iterdir()):
        if path.name[0] in splits:
            write_raster(path, label(values))
