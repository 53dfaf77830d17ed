"""Write small rasters and data sets for tests."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning


def write_raster(path: Path, array: np.ndarray, **profile) -> Path:
    """Write an array (H, W) or (C, H, W) as TIFF, PNG, JPEG or NPY, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npy":
        np.save(path, array)
        return path
    descriptions = profile.pop("descriptions", None)
    colormap = profile.pop("colormap", None)
    driver = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "GTiff")
    array = array[None] if array.ndim == 2 else array
    bands, height, width = array.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=bands, height=height, width=width, dtype=array.dtype, **profile
        ) as file:
            file.write(array)
            if descriptions:
                file.descriptions = descriptions
            if colormap:
                file.write_colormap(1, colormap)
    return path


def write_dataset(root: Path, values=(0, 1, 2), bands: int = 3, size: int = 16, tiles: int = 3) -> Path:
    """Write `tiles` training and two validation tiles whose labels hold the values in stripes."""
    rng = np.random.default_rng(0)
    label = np.resize(np.repeat(np.array(values, dtype=np.int64), 2), (size, size))
    label = label.astype(np.uint8 if min(values) >= 0 and max(values) < 256 else np.int32)
    names = {"train": [f"t{i}" for i in range(tiles)], "val": ["v0", "v1"]}
    for split, stems in names.items():
        for stem in stems:
            image = rng.integers(0, 4000, (bands, size, size)).astype(np.uint16)
            write_raster(root / "images" / f"{stem}.tif", image)
            suffix = ".png" if label.dtype == np.uint8 else ".tif"
            write_raster(root / "labels" / f"{stem}{suffix}", label)
        write_list(root, split, stems)
    return root


def add_heights(root: Path, folder: str = "dem") -> Path:
    """Write for every image a float raster of the same name that holds its first band."""
    for path in sorted((root / "images").iterdir()):
        with rasterio.open(path) as file:
            write_raster(root / folder / f"{path.stem}.tif", file.read(1).astype(np.float32))
    return root


def write_list(root: Path, split: str, names: list[str]) -> None:
    """Write one list."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
