"""What images in memory show, whole or by windows, and parts of scenes as the whole scene shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.data.raster import Window, raster_info
from utils.data.samples import Sample
from utils.data.source import read_source
from utils.data.window import slices
from utils.inference.class_map import map_shape, to_class_map
from utils.inference.decisions import decide
from utils.inference.windows import WindowGrid, predict_blocks, to_images

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Classify:
    """Maps images (B, C, H, W), NaN where invalid, to class ids (B, H, W); any id where invalid.

    Attributes:
        predict: images -> probabilities (B, K, h, w).
        num_classes: K.
        window: side of a window in pixels, or (height, width); None predicts images whole.
        overlap: part of a window that its neighbour shares.
        blend: a key of `blending.PROFILES`.
        batch_size: windows per call of `predict`.
        task: of the network.
    """

    predict: Predict
    num_classes: int
    window: int | tuple[int, int] | None = None
    overlap: float = 0.5
    blend: str = "gaussian"
    batch_size: int = 4
    task: str = "multiclass"

    def __call__(self, images: Tensor, names: Sequence[str] = ()) -> Tensor:
        """Return class ids (B, H, W), or of several labels (B, K, H, W) of 0 and 1; int64.

        The names of the images do not matter.
        """
        if self.window is None:
            return decide(self.predict(images), self.task)
        grid = WindowGrid.cover(*images.shape[-2:], self.window, self.overlap)
        return torch.stack([self.by_windows(image, grid) for image in images.cpu().numpy()])

    def by_windows(self, image: np.ndarray, grid: WindowGrid, least: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the class ids of an image (C, H, W) by the windows of a grid."""
        valid = np.isfinite(image).all(0)

        def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
            rows, columns = slices(window)
            return image[:, rows, columns], valid[rows, columns]

        ids = np.zeros(map_shape(self.num_classes, valid.shape, self.task), np.int64)
        for block in predict_blocks(
            self.predict, read, valid.shape, grid, self.batch_size, blend=self.blend, least=least, threads=0
        ):
            height, width = block.valid.shape
            part = ids[..., block.top : block.top + height, block.left : block.left + width]
            part[...] = to_class_map(block.probabilities, block.valid, self.num_classes, self.task)
        return torch.from_numpy(ids)


@dataclass(frozen=True)
class ClassifyParts:
    """Maps images to class ids, those that are parts of scenes as predict_large.py maps the whole scene.

    Attributes:
        whole: for images that are whole files.
        parts: for parts of scenes; its windows are those of the scene.
        samples: parts of scenes by their names.
        least: scenes smaller than this are continued by reflection, (height, width).
    """

    whole: Classify
    parts: Classify
    samples: Mapping[str, Sample]
    least: tuple[int, int]

    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return the class ids of images (B, C, H, W) with these names, as `Classify` does."""
        if not any(name in self.samples for name in names):
            return self.whole(images)
        return torch.stack(
            [
                self._part(self.samples[name]) if name in self.samples else self.whole(image[None])[0].cpu()
                for image, name in zip(images, names, strict=True)
            ]
        )

    def _part(self, sample: Sample) -> Tensor:
        """Predict all windows of the scene that reach into a part of it, and cut the part out."""
        info, part = raster_info(sample.image), sample.part
        scene = WindowGrid.cover(info.height, info.width, self.parts.window, self.parts.overlap)
        grid, region = scene.around(part)
        image = to_images(*read_source(sample.source, region)).numpy()
        ids = self.parts.by_windows(image, grid, self.least)
        top, left = part.top - region.top, part.left - region.left
        return ids[..., top : top + part.height, left : left + part.width]
