"""What --SCORES writes beside the class map: probabilities, confidence, entropy, in the type asked for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.inference.decisions import confidence, entropy

QUANTA = 254  # a byte holds value x 254; 255 is no-data
_SUMS = {"confidence": confidence, "entropy": entropy}


@dataclass(frozen=True)
class Scores:
    """One raster of scores.

    Attributes:
        kind: "probabilities", a band per class; "confidence" and "entropy", see `decisions`.
        dtype: "float32", "float16", or "uint8" with value x 254.
        task: of the network.
    """

    kind: str = "probabilities"
    dtype: str = "float32"
    task: str = "multiclass"

    @property
    def ending(self) -> str:
        """Return what follows the name of the image."""
        return "_scores.tif" if self.kind == "probabilities" else f"_{self.kind}.tif"

    @property
    def nodata(self) -> float:
        """Return the value of invalid pixels."""
        return 255 if self.dtype == "uint8" else math.nan

    def bands(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the bands."""
        return tuple(names) if self.kind == "probabilities" else (self.kind,)

    @torch.inference_mode()
    def encode(self, probabilities: torch.Tensor, valid: np.ndarray) -> np.ndarray:
        """Map probabilities (K, h, w) to what is written, (bands, h, w), no-data where not `valid`."""
        values = probabilities if self.kind == "probabilities" else _SUMS[self.kind](probabilities, self.task)
        if self.dtype == "uint8":
            values = (values * QUANTA).round_().clamp_(0, QUANTA).to(torch.uint8)
        elif self.dtype == "float16":
            values = values.half()
        encoded = values.cpu().numpy()
        if not valid.all():
            encoded = np.where(valid, encoded, encoded.dtype.type(self.nodata))
        # A view of the probabilities would change with the next windows.
        return encoded.copy() if self.kind == "probabilities" and self.dtype == "float32" else encoded
