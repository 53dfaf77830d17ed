"""Pictures of the same few validation images after each epoch: image, truth, prediction."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from utils.data.bands import rgb_bands
from utils.data.labels import IGNORE, Classes
from utils.data.samples import Sample
from utils.evaluation.contact_sheet import choose, framed
from utils.evaluation.overlays import colorize, preview
from utils.inference.writing import write_png

MOST = 4
LARGEST = 384  # pixels of the longer side of a picture
_GAP, _HEAD = 4, 16  # pixels between the pictures and of the line above them


class SampleSheet:
    """Draws a sheet per epoch, a row for each image.

    Args:
        folder: where the sheets stand; it is made when the first is written.
        samples: of the validation; those are drawn that show as many classes as possible.
        classes: with their colours.
        band_names: of the images.
    """

    def __init__(
        self,
        folder: Path,
        samples: Sequence[Sample],
        classes: Classes,
        band_names: Sequence[str | None],
    ):
        self.folder, self.classes, self.band_names = folder, classes, band_names
        self.names = [sample.name for sample in choose(samples, min(MOST, len(samples)))]
        self._left: dict[str, list[np.ndarray]] = {}  # image and truth stay the same
        self._predictions: dict[str, np.ndarray] = {}

    def take(self, batch: dict, predictions: Tensor, masks: Tensor) -> None:
        """Keep what the sheet needs of a batch."""
        for index in wanted(batch["name"], self.names):
            name = batch["name"][index]
            step = -(-max(masks.shape[-2:]) // LARGEST)
            valid = np.asarray(batch["valid"][index])
            if name not in self._left:
                image = np.asarray(batch["image"][index])
                shown = preview(image, valid, rgb_bands(len(image), self.band_names))
                truth = colorize(masks[index].cpu().numpy(), self.classes.colors)
                self._left[name] = [shown[::step, ::step], truth[::step, ::step]]
            ids = np.where(valid, predictions[index].cpu().numpy(), IGNORE)
            self._predictions[name] = colorize(ids, self.classes.colors)[::step, ::step]

    def write(self, name: str) -> None:
        """Write `name`.png with the predictions since the last sheet."""
        rows = [[*self._left[key], self._predictions[key]] for key in self.names if key in self._predictions]
        self._predictions.clear()
        if not rows:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_png(self.folder / f"{name}.png", _sheet(rows))


def wanted(names: Iterable[str], chosen: Sequence[str]) -> list[int]:
    """Return the places of the chosen among the names."""
    return [index for index, name in enumerate(names) if name in chosen]


def _sheet(rows: list[list[np.ndarray]]) -> Image.Image:
    """Return rows of pictures (H, W, 3) below a line of headings."""
    height, width = (max(row[0].shape[axis] for row in rows) for axis in (0, 1))
    size = (height + _GAP, width + _GAP)
    pixels = np.vstack([np.hstack([framed(picture, size) for picture in row]) for row in rows])
    sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + _HEAD), "white")
    sheet.paste(Image.fromarray(pixels), (0, _HEAD))
    for column, heading in enumerate(("image", "truth", "prediction")):
        ImageDraw.Draw(sheet).text((column * (width + _GAP) + 2, 2), heading, fill=(34, 34, 34))
    return sheet
