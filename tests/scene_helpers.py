"""A point-wise network in memory and the call of predict_large.py, for the tests of scenes."""

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn

import predict_large
from utils.data.labels import Classes
from utils.program import run_program

GRID = {"crs": "EPSG:32633", "transform": Affine(10.0, 0.0, 465180.0, 0.0, -10.0, 5080250.0)}
CLASSES = Classes(
    ("ice", "rock", "lake"), ((240, 240, 255), (90, 60, 40), (0, 90, 220)), {0: 0, 1: 1, 2: 2}, ()
)
WINDOWS = ("--WINDOW", "64", "--NUM_WORKERS", "2")


class Bands(nn.Module):
    """Three bands in, three classes out: the largest band wins; context where `kernel` is above 1."""

    min_size, size_divisor, task = 32, 1, "multiclass"

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.bands = self.num_classes = 3
        self.layer = nn.AvgPool2d(kernel, 1, kernel // 2, count_include_pad=False)
        self.calls: list[tuple[int, ...]] = []
        self.about = {
            "classes": CLASSES.to_dict(),
            "bands": {"names": ["red", "green", "blue"]},
            "crop_size": [64, 64],
        }

    def forward(self, images):
        self.calls.append(tuple(images.shape))
        return {"logits": 0.05 * self.layer(torch.nan_to_num(images))}

    def probabilities(self, outputs):
        return outputs["logits"].softmax(1)


def use(monkeypatch, network: nn.Module) -> nn.Module:
    """Make `load_network` return this network."""
    fake = types.ModuleType("Structure")
    fake.load_network = lambda path: network.eval()
    monkeypatch.setitem(sys.modules, "Structure", fake)
    return network


def large(source: Path | str, output: Path, *more: str) -> int:
    """Run predict_large.py."""
    argv = ["--WEIGHTS", "x.pth", "--INPUT", str(source), "--OUTPUT", str(output), "--USE_CPU", *more]
    return run_program(predict_large.main, argv)


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image (3, H, W) uint8 whose largest band changes in patches and with single pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (3, -(-height // 16), -(-width // 16)))
    image = np.kron(coarse, np.ones((16, 16), int))[:, :height, :width] + rng.integers(
        0, 30, (3, height, width)
    )
    return image.astype(np.uint8)


def write_scene(path: Path, image: np.ndarray, **more: object) -> Path:
    """Write a georeferenced GeoTIFF."""
    bands, height, width = image.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": image.dtype.name}
    with rasterio.open(path, "w", **{**profile, **GRID, **more}) as target:
        target.write(image)
    return path


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def read(path) -> np.ndarray:
    """Return all bands of a raster, georeferenced or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as source:
            return source.read()
