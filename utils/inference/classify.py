"""What images in memory show, whole or by windows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.data.raster import Window
from utils.inference.class_map import map_shape, to_class_map
from utils.inference.decisions import decide
from utils.inference.windows import WindowGrid, predict_blocks

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Classify:
    """Maps images (B, C, H, W), NaN where invalid, to what `decide` says of them; anything where invalid.

    Attributes:
        predict: images -> probabilities (B, K, h, w).
        num_classes: K.
        window: side of a window in pixels; None predicts images whole.
        overlap: part of a window that its neighbour shares.
        blend: a key of `blending.PROFILES`.
        batch_size: windows per call of `predict`.
        task: of the network.
    """

    predict: Predict
    num_classes: int
    window: int | None = None
    overlap: float = 0.5
    blend: str = "gaussian"
    batch_size: int = 4
    task: str = "multiclass"

    def __call__(self, images: Tensor) -> Tensor:
        """Return class ids (B, H, W), or of several labels (B, K, H, W) of 0 and 1; int64."""
        if self.window is None:
            return decide(self.predict(images), self.task)
        return torch.stack([self._by_windows(image) for image in images.cpu().numpy()])

    def _by_windows(self, image: np.ndarray) -> Tensor:
        valid = np.isfinite(image).all(0)

        def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
            rows = slice(window.top, window.top + window.height)
            columns = slice(window.left, window.left + window.width)
            return image[:, rows, columns], valid[rows, columns]

        grid = WindowGrid.cover(*valid.shape, self.window, self.overlap)
        ids = np.zeros(map_shape(self.num_classes, valid.shape, self.task), np.int64)
        for block in predict_blocks(
            self.predict, read, valid.shape, grid, self.batch_size, blend=self.blend, threads=0
        ):
            height, width = block.valid.shape
            part = ids[..., block.top : block.top + height, block.left : block.left + width]
            part[...] = to_class_map(block.probabilities, block.valid, self.num_classes, self.task)
        return torch.from_numpy(ids)
