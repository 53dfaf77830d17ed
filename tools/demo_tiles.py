"""Cutting demo landscapes into tiles, choosing the tiles of each split, and writing them as GeoTIFF."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from tqdm import tqdm

from tools.demo_scene import BANDS, CLASSES, IGNORE, NODATA, PALETTE, PIXEL, Scene, render_scene

GRID = (4, 5)  # tiles along the sides of one landscape
PER_LANDSCAPE = 16  # of its 20 tiles
EPSG = 32645  # UTM zone 45 north, the central Himalaya


class Tile(NamedTuple):
    """A tile: (10, H, W) image, (H, W) label, and easting and northing of its upper left corner."""

    name: str
    image: np.ndarray
    label: np.ndarray
    corner: tuple[float, float]


def _write_raster(
    path: Path, image: np.ndarray, origin: tuple[float, float], nodata: int, names: tuple[str, ...]
) -> None:
    """Write (C, H, W) or (H, W) as a tiled, deflated GeoTIFF; a single band gets the classes' colours."""
    layers = image if image.ndim == 3 else image[None]
    side = 256 if min(layers.shape[1:]) > 512 else 128 if min(layers.shape[1:]) % 128 == 0 else 16
    transform = rasterio.Affine(PIXEL, 0.0, origin[0], 0.0, -PIXEL, origin[1])
    profile = {
        "driver": "GTiff", "count": layers.shape[0], "height": layers.shape[1], "width": layers.shape[2],
        "dtype": layers.dtype.name, "crs": f"EPSG:{EPSG}", "transform": transform,
        "nodata": nodata, "tiled": True, "blockxsize": side, "blockysize": side, "compress": "deflate",
        "predictor": 2 if layers.dtype.itemsize > 1 else 1, "interleave": "pixel",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        if image.ndim == 2:
            target.write_colormap(1, {value: (*color, 255) for value, color in enumerate(PALETTE)})
        target.write(layers)
        target.descriptions = names


def count_pixels(labels: list[np.ndarray]) -> np.ndarray:
    """Return the number of pixels of every label value, 0 to 255."""
    return sum(np.bincount(label.ravel(), minlength=256) for label in labels)


def _origin(number: int) -> tuple[float, float]:
    """Return easting and northing of the upper left corner of a landscape; they lie 60 km apart."""
    return 300000.0 + 60000.0 * (number % 6), 3180000.0 - 60000.0 * (number // 6)


def _choose(rng: np.random.Generator, labels: list[np.ndarray], count: int) -> list[int]:
    """Return which tiles to keep: the random draw of 50 whose rarest class has the largest share.

    Tiles of almost a single class are drawn only if there are too few others.
    """
    pixels = np.array([count_pixels([label])[: len(CLASSES)] for label in labels])
    shares = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    mixed = [i for i in range(len(labels)) if 0 < shares[i].max() < 0.97]
    plain = [i for i in range(len(labels)) if i not in mixed and pixels[i].any()]
    best, best_share = [], -1.0
    for _ in range(50):
        draw = list(rng.permutation(mixed)[:count])
        draw += list(rng.permutation(plain)[: count - len(draw)])
        total = pixels[draw].sum(axis=0)
        if total.min() / total.sum() > best_share:
            best, best_share = draw, total.min() / total.sum()
    return sorted(int(i) for i in best)


def _landscapes(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Return the split and the running number of every landscape; 0 is the larger scene."""
    splits = [split for split, count in counts.items() for _ in range(max(2, -(-count // PER_LANDSCAPE)))]
    return [(split, number) for number, split in enumerate(splits, start=1)]


def _cut(scene: Scene, number: int, tile: int, grid: tuple[int, int]) -> Iterator[Tile]:
    """Yield the tiles of a landscape."""
    east, north = _origin(number)
    for row, column in np.ndindex(*grid):
        window = (slice(row * tile, (row + 1) * tile), slice(column * tile, (column + 1) * tile))
        corner = (east + column * tile * PIXEL, north - row * tile * PIXEL)
        yield Tile(
            f"{number:02d}_{row}{column}", scene.image[(slice(None), *window)], scene.label[window], corner
        )


def write_tiles(folder: Path, seed: int, tile: int, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Render the landscapes, write lists and chosen tiles; return each split's pixels per label value."""
    pool: dict[str, list[Tile]] = {split: [] for split in counts}
    for split, number in tqdm(_landscapes(counts), desc="landscapes", unit="scene"):
        grid = GRID if number % 2 else GRID[::-1]
        scene = render_scene((seed, number), (grid[0] * tile, grid[1] * tile))
        pool[split] += _cut(scene, number, tile, grid)
    pixels = {}
    for index, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng((seed, 1_000_000 + index))
        kept = [pool[split][place] for place in _choose(rng, [entry.label for entry in pool[split]], count)]
        for entry in kept:
            name = f"{split}_{entry.name}.tif"
            _write_raster(folder / "images" / name, entry.image, entry.corner, NODATA, BANDS)
            _write_raster(folder / "labels" / name, entry.label, entry.corner, IGNORE, ("class",))
        names = "".join(f"{split}_{entry.name}\n" for entry in kept)
        (folder / "annotations" / f"{split}.txt").write_text(names, encoding="utf-8", newline="\n")
        pixels[split] = count_pixels([entry.label for entry in kept])
    return pixels


def write_scene(folder: Path, seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Render the larger scene, write `scene.tif` and `label.tif`, and return its pixels per label value."""
    scene = render_scene((seed, 0), shape)
    _write_raster(folder / "scene.tif", scene.image, _origin(0), NODATA, BANDS)
    _write_raster(folder / "label.tif", scene.label, _origin(0), IGNORE, ("class",))
    return count_pixels([scene.label])
