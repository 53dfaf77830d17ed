"""Pictures of training batches: what the network sees, its classes, and what is ignored."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.data.labels import Classes
from utils.data.photometric import BandRanges
from utils.evaluation.overlays import INVALID, draw_legend, ignored_pixels, overlay, shown_classes
from utils.evaluation.plots import INK, fonts, legible, save

MARK = (255, 0, 255)
_SPREAD = 2.5  # standard deviations on either side of the mean, from black to white
_DPI = 110
_STRIPE = 6  # pixels between the lines that mark ignored pixels


def display_limits(ranges: BandRanges, shown: Sequence[int], dtype: str) -> np.ndarray:
    """Return black and white (2, n) of the shown bands, the same for every sample.

    So what augmentation does to brightness and contrast shows. 8-bit images of three bands go from 0 to 255.
    """
    if dtype == "uint8" and len(ranges.mean) == 3:
        return np.array([[0.0], [255.0]]).repeat(len(shown), axis=1)
    mean, deviation = np.asarray(ranges.mean)[list(shown)], np.asarray(ranges.std)[list(shown)]
    deviation = np.where(deviation > 0, deviation, 1.0)
    return np.stack([mean - _SPREAD * deviation, mean + _SPREAD * deviation])


def stretch(image: np.ndarray, shown: Sequence[int], limits: np.ndarray) -> np.ndarray:
    """Map bands of a float image (C, H, W) to a picture, uint8 (H, W, 3); NaN is mid-grey."""
    low, high = limits[..., None, None]
    scaled = ((image[list(shown)] - low) / (high - low)).clip(0, 1)
    invalid = np.isnan(scaled).any(axis=0)
    picture = (255 * np.where(invalid, 0, scaled) + 0.5).astype(np.uint8)
    picture = np.broadcast_to(picture, (3, *invalid.shape)).transpose(1, 2, 0).copy()
    picture[invalid] = INVALID
    return picture


def mark_ignored(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw slanting magenta lines over the ignored pixels of a picture (H, W, 3)."""
    rows, columns = np.indices(mask.shape[-2:])
    lines = (rows + columns) % _STRIPE == 0
    marked = picture.copy()
    marked[lines & ignored_pixels(mask)] = MARK
    return marked


def draw_batch(
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    shown: Sequence[int],
    limits: np.ndarray,
    classes: Classes,
    path: Path,
    title: str = "",
) -> None:
    """Write a PNG: below each crop of a batch its classes over it, ignored pixels striped in magenta.

    Args:
        images: (B, C, H, W) float, NaN where invalid.
        masks: (B, H, W) class ids, `IGNORE` where ignored; of several labels (B, K, H, W) of 0 and 1.
        names: of the samples.
        shown: bands to show, three or one.
        limits: black and white of these bands (2, n).
        classes: names and colours.
        path: PNG to write.
        title: line above all.
    """
    panels = []
    for image, mask, name in zip(images, masks, legible(names), strict=True):
        picture = stretch(image, shown, limits)
        panels.append((name, picture, mark_ignored(overlay(picture, mask, classes.colors), mask)))
    occurring = sorted({index for mask in masks for index in shown_classes(mask)})
    labels = legible(classes.names)
    legend = [(labels[index], classes.colors[index]) for index in occurring]
    legend += [("ignored", MARK)] if any(ignored_pixels(mask).any() for mask in masks) else []
    draw_panels(panels, legend, path, title)


def draw_panels(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
    legend: list[tuple[str, Sequence[int]]],
    path: Path,
    title: str,
) -> None:
    """Write a PNG of panels (a name, two pictures (H, W, 3) one below the other) and a legend below all."""
    with fonts():
        figure, size = _placed(panels)
        figure.text(0, 1 + 0.04 / size[1], title, fontsize=10, ha="left", va="bottom")
        if legend:
            draw_legend(figure, legend, size)
        save(figure, path, dpi=_DPI)


def _placed(panels: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> tuple[Figure, tuple[float, float]]:
    """Return a figure with a name and two pictures one below the other per panel, and its size in inches."""
    height, width = panels[0][1].shape[:2]
    # As many as can be shown without shrinking them, but two.
    columns = min(len(panels), 8, max(2, int(14.4 * _DPI / width)))
    wide = min(max(width / _DPI, 1.6), 14.4 / columns)
    tall = wide * height / width
    gap, head = 0.08, 0.22
    size = (columns * (wide + gap), math.ceil(len(panels) / columns) * (2 * tall + gap + head))
    figure = Figure(figsize=size)
    for index, (name, *pictures) in enumerate(panels):
        row, column = divmod(index, columns)
        left, top = column * (wide + gap), size[1] - row * (2 * tall + gap + head) - head
        for below, pixels in enumerate(pictures):
            bottom = top - (below + 1) * tall - below * gap / 2
            axes = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], tall / size[1]))
            axes.imshow(pixels, interpolation="nearest" if width <= wide * _DPI else "antialiased")
            axes.set_axis_off()
            if not below:
                axes.set_title(name, fontsize=8, loc="left", pad=3, color=INK)
    return figure, size
