"""Pictures of maps: any bands as RGB, class ids in colour, and truth, prediction and errors side by side."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from utils.data.bands import rgb_bands
from utils.data.labels import IGNORE, Classes
from utils.evaluation.plots import INK, MUTED, fonts, legible, save

INVALID = (128, 128, 128)
IGNORED = (225, 225, 225)
NOTHING = (40, 40, 40)
ERROR = (214, 39, 40)

_SAMPLE = 1_000_000  # pixels that are enough for percentiles


def preview(image: np.ndarray, valid: np.ndarray, rgb: Sequence[int] | None = None) -> np.ndarray:
    """Map an image (C, H, W) of any dtype to a picture, uint8 (H, W, 3).

    Each shown band is stretched between its 2nd and 98th percentile over the valid pixels; 8-bit images of
    three bands are shown as they are. Invalid pixels are mid-grey.

    Args:
        image: bands in data units.
        valid: (H, W), False where the image has no data.
        rgb: indices of the bands to show, three or one; default: `rgb_bands` without names.
    """
    chosen = tuple(rgb) if rgb is not None else rgb_bands(len(image))
    shown = image[list(chosen)]
    if not (image.dtype == np.uint8 and len(image) == 3):
        shown = np.stack([_stretch(band, valid) for band in shown])
    picture = np.array(np.broadcast_to(shown, (3, *valid.shape)).transpose(1, 2, 0), order="C")
    picture[~valid] = INVALID
    return picture


def _stretch(band: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Map one band (H, W) to uint8 by its 2nd and 98th percentile; a band that never varies is mid-grey."""
    band = band.astype(np.float32)
    usable = valid & np.isfinite(band)
    step = math.isqrt(band.size // _SAMPLE) + 1
    sample = band[::step, ::step][usable[::step, ::step]]
    sample = sample if sample.size else band[usable]
    low, high = np.percentile(sample, (2, 98)) if sample.size else (0.0, 0.0)
    if high <= low and sample.size:  # nearly all pixels alike, as in a thin river on an empty band
        low, high = sample.min(), sample.max()
    if not high > low:
        return np.full(band.shape, 128, dtype=np.uint8)
    scaled = np.clip((np.where(usable, band, low) - low) / (high - low), 0, 1)
    return (255 * scaled + 0.5).astype(np.uint8)


def colorize(class_map: np.ndarray, colors: Sequence[Sequence[int]], ignored: int = IGNORE) -> np.ndarray:
    """Map a class map to its colours, uint8 (H, W, 3); ignored pixels are light grey.

    Of several labels, (K, H, W) of 0 and 1, a pixel has the mean colour of its classes; without any it is
    nearly black.
    """
    if class_map.ndim == 3:
        present = class_map == 1
        count = present.sum(axis=0)[..., None]
        total = np.tensordot(present, np.array(colors, np.float32), axes=(0, 0))
        mixed = np.where(count, (total / count.clip(min=1) + 0.5).astype(np.uint8), np.uint8(NOTHING))
        mixed[ignored_pixels(class_map, ignored)] = IGNORED
        return mixed
    table = np.array([*colors, IGNORED], dtype=np.uint8)
    ids = class_map.astype(np.int64)
    return table[np.where(ids == ignored, len(colors), ids)]


def overlay(
    picture: np.ndarray,
    class_map: np.ndarray,
    colors: Sequence[Sequence[int]],
    alpha: float = 0.5,
    ignored: int = IGNORE,
) -> np.ndarray:
    """Lay class colours over a picture (H, W, 3), `alpha` of them; ignored pixels stay as they are.

    So do those that of several labels have none.
    """
    alpha = np.float32(alpha)  # in float64 it takes twice as long
    mixed = (1 - alpha) * picture + alpha * colorize(class_map, colors, ignored)
    bare = class_map == ignored if class_map.ndim == 2 else ~(class_map == 1).any(axis=0)
    return np.where(bare[..., None], picture, (mixed + 0.5).astype(np.uint8))


def ignored_pixels(class_map: np.ndarray, ignored: int = IGNORE) -> np.ndarray:
    """Return where (H, W) a class map is ignored, of several labels all of them."""
    return class_map == ignored if class_map.ndim == 2 else (class_map == ignored).all(axis=0)


def shown_classes(class_map: np.ndarray) -> list[int]:
    """Return the ids of the classes that a class map shows."""
    if class_map.ndim == 2:
        return np.unique(class_map[class_map != IGNORE]).tolist()
    return np.flatnonzero((class_map == 1).any(axis=(1, 2))).tolist()


def mark_errors(picture: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Draw the wrong pixels red on a pale grey picture (H, W, 3); ignored pixels are light grey."""
    grey = picture.astype(np.float32).mean(axis=2, keepdims=True)
    result = np.repeat((110 + 0.5 * grey).astype(np.uint8), 3, axis=2)
    result[ignored_pixels(truth)] = IGNORED
    wrong = (truth != IGNORE) & (truth != prediction)
    result[wrong if wrong.ndim == 2 else wrong.any(axis=0)] = ERROR
    return result


def side_by_side(
    picture: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: Classes,
    path: Path,
    *,
    title: str = "",
    largest: int = 1024,
) -> None:
    """Write a PNG of input, truth, prediction and errors with a legend of the classes that occur.

    Args:
        picture: uint8 (H, W, 3), as `preview` makes it.
        truth: class ids (H, W), `IGNORE` where ignored; of several labels (K, H, W) of 0 and 1.
        prediction: likewise.
        classes: names and colours.
        path: PNG to write.
        title: line above the panels.
        largest: longer sides are shrunk to this many pixels, so that a whole scene stays a picture.
    """
    counted = truth != IGNORE
    occurring = sorted({*shown_classes(truth), *shown_classes(prediction)})
    wrong = (counted & (truth != prediction)).sum() / max(1, counted.sum())
    step = math.ceil(max(truth.shape[-2:]) / largest)
    if step > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(step))
        rows, columns = (  # the middle of each block that `reduce` averages, the last one cut short
            np.minimum(np.arange(math.ceil(side / step)) * step + step // 2, side - 1)
            for side in truth.shape[-2:]
        )
        truth, prediction = (ids[..., rows[:, None], columns] for ids in (truth, prediction))
    panels = {
        "input": picture,
        "truth": colorize(truth, classes.colors),
        "prediction": colorize(prediction, classes.colors),
        f"errors in red ({100 * wrong:.1f} %)": mark_errors(picture, truth, prediction),
    }
    names = legible(classes.names)
    legend = [(names[index], classes.colors[index]) for index in occurring]
    legend += [("none", NOTHING)] if truth.ndim == 3 else []
    legend += [("ignored", IGNORED)] if ignored_pixels(truth).any() else []
    _draw_panels(panels, legend, path, legible([title], longest=120)[0] if title else "")


def _draw_panels(
    panels: dict[str, np.ndarray], legend: list[tuple[str, Sequence[int]]], path: Path, title: str
) -> None:
    """Draw panels in a row (or 2 x 2 where they are wide) with a title above and a legend below."""
    height, width = next(iter(panels.values())).shape[:2]
    columns = 2 if width >= 1.6 * height else 4
    rows = len(panels) // columns
    dpi, gap, head = 140, 0.1, 0.26  # inches
    wide = min(max(width / dpi, 2.2), 14.4 / columns)
    wide = min(wide, 6.5 * width / height)  # a very tall image
    tall = wide * height / width
    size = (columns * wide + (columns - 1) * gap, rows * (tall + head))
    with fonts():
        figure = Figure(figsize=size)
        for index, (name, pixels) in enumerate(panels.items()):
            row, column = divmod(index, columns)
            left, bottom = column * (wide + gap), size[1] - (row + 1) * (tall + head)
            axes = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], tall / size[1]))
            # enlarged pixels stay square and keep their colours, shrunk ones are averaged
            axes.imshow(pixels, interpolation="nearest" if width <= wide * dpi else "antialiased")
            axes.set_title(name, fontsize=9, loc="left", pad=4, color=INK)
            axes.set_axis_off()
        if title:
            figure.text(0, 1 + 0.04 / size[1], title, fontsize=10, ha="left", va="bottom")
        draw_legend(figure, legend, size)
        save(figure, path, dpi=dpi)


def draw_legend(figure: Figure, legend: list[tuple[str, Sequence[int]]], size: tuple[float, float]) -> None:
    """Draw names and colours below a figure of this size in inches."""
    handles = [
        Patch(facecolor=np.array(color) / 255, edgecolor=MUTED, linewidth=0.5, label=name)
        for name, color in legend
    ]
    letters = max(len(name) for name, _ in legend) + 5
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, -0.08 / size[1]),
        ncols=max(1, min(len(handles), int(size[0] / (0.085 * letters)))),
        frameon=False,
        fontsize=9,
        borderaxespad=0,
        borderpad=0.2,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.2,
    )
