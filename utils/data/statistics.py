"""Band statistics of a training split."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.raster import Window, read_image
from utils.data.samples import Sample
from utils.data.threads import in_threads
from utils.files import replacing

_STRIP_PIXELS = 2**22


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of each band over the valid pixels of a split; all zero where there is no valid pixel.

    Attributes:
        mean: Mean per band.
        std: Standard deviation per band (of the population); 0.0 where the band never varies.
        minimum: Smallest value per band.
        maximum: Largest value per band.
        valid_pixels: Pixels that were counted.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    valid_pixels: int

    @property
    def scale(self) -> tuple[float, ...]:
        """What to divide by: the standard deviation, 1.0 where the band never varies."""
        return tuple(value if value > 0 else 1.0 for value in self.std)

    def to_dict(self) -> dict[str, list[float] | int]:
        """Return plain lists and numbers for JSON or a checkpoint."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "minimum": list(self.minimum),
            "maximum": list(self.maximum),
            "valid_pixels": self.valid_pixels,
        }

    @classmethod
    def from_dict(cls, values: dict[str, list[float] | int]) -> "BandStatistics":
        """Build the statistics from what `to_dict` returned."""
        lists = {key: tuple(map(float, values[key])) for key in ("mean", "std", "minimum", "maximum")}
        return cls(**lists, valid_pixels=int(values["valid_pixels"]))


@dataclass(frozen=True)
class _Moments:
    """Count, mean, sum of squared deviations, minimum and maximum of each band."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


def measure_bands(
    samples: Sequence[Sample], *, workers: int | None = None, progress: bool = True
) -> BandStatistics:
    """Measure every band over the valid pixels of the samples, in float64.

    Images are merged in the samples' order, so the result does not depend on the number of threads.
    """
    parts = in_threads(_image_moments, samples, workers, "measuring bands" if progress else None)
    total = None
    for part in parts:
        total = part if total is None else _merge(total, part)
    if total.count == 0:
        zeros = (0.0,) * len(total.mean)
        return BandStatistics(zeros, zeros, zeros, zeros, 0)
    # The rounding of the mean would leave a constant band a tiny deviation, and a huge normalised value.
    std = np.where(total.minimum == total.maximum, 0.0, np.sqrt(total.squares / total.count))
    return BandStatistics(
        mean=tuple(total.mean.tolist()),
        std=tuple(std.tolist()),
        minimum=tuple(total.minimum.tolist()),
        maximum=tuple(total.maximum.tolist()),
        valid_pixels=total.count,
    )


def cached_statistics(
    path: Path, samples: Sequence[Sample], measure: Callable[[], BandStatistics]
) -> BandStatistics:
    """Return the statistics kept in a JSON file if they are of these very images, else measure and keep them.

    Args:
        path: The JSON file.
        samples: The images; their names, sizes in bytes and times of change are compared.
        measure: Called without arguments where the file is missing, damaged or of other images.
    """
    key = _fingerprint(samples)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return BandStatistics.from_dict(kept["statistics"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    statistics = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        text = json.dumps({"key": key, "statistics": statistics.to_dict()}, indent=1)
        part.write_text(text, encoding="utf-8")
    return statistics


def _image_moments(sample: Sample) -> _Moments:
    rows = max(1, _STRIP_PIXELS // sample.width)
    total = None
    for top in range(0, sample.height, rows):
        window = sample.inside(Window(top, 0, min(rows, sample.height - top), sample.width))
        image, valid = read_image(sample.image, window)
        valid &= sample.allowed(window)
        part = _moments(image[:, valid].astype(np.float64))
        total = part if total is None else _merge(total, part)
    return total


def _moments(values: np.ndarray) -> _Moments:
    """Measure (C, N) values."""
    bands, count = values.shape
    if count == 0:
        zeros = np.zeros(bands)
        return _Moments(0, zeros, zeros, np.full(bands, np.inf), np.full(bands, -np.inf))
    mean = values.mean(axis=1)
    squares = np.square(values - mean[:, None]).sum(axis=1)
    return _Moments(count, mean, squares, values.min(axis=1), values.max(axis=1))


def _merge(one: _Moments, other: _Moments) -> _Moments:
    """Join two sets of pixels (Chan, Golub and LeVeque, "Updating formulae", 1979)."""
    count = one.count + other.count
    if count == 0:
        return one
    delta = other.mean - one.mean
    return _Moments(
        count=count,
        mean=one.mean + delta * (other.count / count),
        squares=one.squares + other.squares + delta**2 * (one.count * other.count / count),
        minimum=np.minimum(one.minimum, other.minimum),
        maximum=np.maximum(one.maximum, other.maximum),
    )


def _fingerprint(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        status = sample.image.stat()
        digest.update(f"{sample.image.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
        if sample.window or sample.avoid:
            digest.update(f"{sample.window}|{sample.avoid}\n".encode())
    return digest.hexdigest()
