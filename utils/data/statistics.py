"""Band statistics of a training split."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.drawn_windows import draw_windows
from utils.data.raster import Window, raster_info
from utils.data.samples import Sample
from utils.data.scaling import Scaling
from utils.data.source import read_source
from utils.data.threads import in_threads
from utils.files import replacing

_STRIP_PIXELS = 2**22
# Values (pixels times bands) of a set that are all looked at, and of a larger set those that are drawn: a few
# seconds of a processor.
MOST_VALUES = 2**28
DRAWN_VALUES = 2**27
# Seconds after which no further part of a larger set is waited for.
MOST_SECONDS = 40.0
# Values that are held in memory for percentiles.
MOST_KEPT = 2**24
STANDARD = Scaling()
_LISTS = ("mean", "std", "minimum", "maximum", "low", "high")
_NUMBERS = ("valid_pixels", "pixels", "read_pixels")


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of each band over the valid pixels of a split; all zero where there is no valid pixel.

    Attributes:
        mean: Mean per band.
        std: Standard deviation per band (of the population); 0.0 where the band never varies.
        minimum: Smallest value per band.
        maximum: Largest value per band.
        valid_pixels: Pixels that were counted.
        low: Lower percentile per band, empty where percentiles were not asked for.
        high: Upper percentile per band.
        scaling: Which statistics the network's buffers come from.
        pixels: Pixels of the whole split, valid or not.
        read_pixels: Those of them that were looked at.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    valid_pixels: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    scaling: Scaling = STANDARD
    pixels: int = 0
    read_pixels: int = 0

    @property
    def center(self) -> tuple[float, ...]:
        """What to subtract: the mean, or what stands for it where percentiles count."""
        return tuple(center for center, _ in self._pairs())

    @property
    def scale(self) -> tuple[float, ...]:
        """What to divide by: the standard deviation, 1.0 where the band never varies."""
        return tuple(scale for _, scale in self._pairs())

    def _pairs(self) -> list[tuple[float, float]]:
        pairs = [(mean, std if std > 0 else 1.0) for mean, std in zip(self.mean, self.std, strict=True)]
        for band, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            # A band that is nearly everywhere the same has no spread between its percentiles.
            if high > low:
                pairs[band] = self.scaling.normal(low, high)
        return pairs

    @property
    def share(self) -> str:
        """How much of the split was looked at, in words; empty where it was all of it."""
        if self.read_pixels >= self.pixels:
            return ""
        return f"measured on {100 * self.read_pixels / self.pixels:.2g} % of the pixels, drawn at random"

    def to_dict(self) -> dict[str, list[float] | int]:
        """Return plain lists and numbers for JSON or a checkpoint."""
        return {
            **{name: list(getattr(self, name)) for name in _LISTS},
            **{name: getattr(self, name) for name in _NUMBERS},
            "percentiles": list(self.scaling.percentiles or ()),
        }

    @classmethod
    def from_dict(cls, values: dict[str, list[float] | int]) -> "BandStatistics":
        """Build the statistics from what `to_dict` returned."""
        lists = {key: tuple(map(float, values[key])) for key in _LISTS}
        numbers = {key: int(values[key]) for key in _NUMBERS}
        return cls(**lists, **numbers, scaling=Scaling(tuple(values["percentiles"]) or None))


@dataclass(frozen=True)
class _Moments:
    """Count, mean, sum of squared deviations, minimum and maximum of each band."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


class _Measured(NamedTuple):
    """What was found in one sample: its moments, and the values (C, n) that are kept for percentiles."""

    moments: _Moments
    kept: list[np.ndarray]


def measure_bands(
    samples: Sequence[Sample],
    scaling: Scaling = STANDARD,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> BandStatistics:
    """Measure every band over the valid pixels of the samples, in float64.

    A set of more than `MOST_VALUES` values is measured on `DRAWN_VALUES`, in windows drawn at random over it;
    where even these take long, as from a slow disk, on those that could be read in `MOST_SECONDS`. Windows
    and images are merged in their order, so the result does not depend on the number of threads.
    Percentiles are exact up to `MOST_KEPT` values, else those of as many random ones.

    Args:
        samples: The images.
        scaling: Says whether percentiles are wanted.
        seed: Start of the draws.
        workers: Threads that read.
        progress: Show a bar.
    """
    pixels, bands = sum(sample.height * sample.width for sample in samples), _count_bands(samples[0])
    started, drawn = time.monotonic(), pixels * bands > MOST_VALUES
    parts = draw_windows(samples, DRAWN_VALUES // bands, seed, workers) if drawn else samples
    wanted = sum(part.height * part.width for part in parts)
    kept_share = min(1.0, MOST_KEPT / (wanted * bands)) if scaling.percentiles else 0.0
    measure = partial(_measure, kept_share, seed)
    total, kept, read = None, [], 0
    results = in_threads(measure, list(enumerate(parts)), workers, "measuring bands" if progress else None)
    for part, found in zip(parts, results, strict=False):
        total = found.moments if total is None else _merge(total, found.moments)
        kept += found.kept
        read += part.height * part.width
        if drawn and total.count and time.monotonic() - started > MOST_SECONDS:
            results.close()
            break
    return _statistics(total, kept, scaling, pixels, read)


def _statistics(
    total: "_Moments", kept: Sequence[np.ndarray], scaling: Scaling, pixels: int, read: int
) -> BandStatistics:
    zeros, more = (0.0,) * len(total.mean), {"scaling": scaling, "pixels": pixels, "read_pixels": read}
    if total.count == 0:
        return BandStatistics(zeros, zeros, zeros, zeros, 0, **more)
    values = np.concatenate(kept, axis=1) if kept else np.empty((len(zeros), 0))
    if values.shape[1]:
        low, high = np.percentile(values, scaling.percentiles, axis=1)
        more |= {"low": tuple(low.tolist()), "high": tuple(high.tolist())}
    # The rounding of the mean would leave a constant band a tiny deviation, and a huge normalised value.
    std = np.where(total.minimum == total.maximum, 0.0, np.sqrt(total.squares / total.count))
    lists = (array.tolist() for array in (total.mean, std, total.minimum, total.maximum))
    return BandStatistics(*map(tuple, lists), total.count, **more)


def _count_bands(sample: Sample) -> int:
    if sample.pieces:
        return sum(len(piece.places) for piece in sample.pieces)
    return raster_info(sample.image).bands


def cached_statistics(
    path: Path, samples: Sequence[Sample], measure: Callable[[], BandStatistics], how: str = ""
) -> BandStatistics:
    """Return the statistics kept in a JSON file if they are of these very images, else measure and keep them.

    Args:
        path: The JSON file.
        samples: The images; their names, sizes in bytes and times of change are compared.
        measure: Called without arguments where the file is missing, damaged or of other images.
        how: What else decides the result.
    """
    key = f"{_fingerprint(samples)} {how}"
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


def _measure(kept_share: float, seed: int, numbered: tuple[int, Sample]) -> _Measured:
    """Measure a sample, strip by strip, and keep this share of its pixels."""
    number, sample = numbered
    rng = np.random.default_rng((seed, number))
    rows = max(1, _STRIP_PIXELS // sample.width)
    total, kept = None, []
    for top in range(0, sample.height, rows):
        window = sample.inside(Window(top, 0, min(rows, sample.height - top), sample.width))
        image, valid = read_source(sample.source, window)
        valid &= sample.allowed(window)
        values = image[:, valid]
        if kept_share:
            kept.append(values if kept_share == 1 else values[:, rng.random(values.shape[1]) < kept_share])
        part = _moments(values.astype(np.float64))
        total = part if total is None else _merge(total, part)
    return _Measured(total, kept)


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
        for path, bands, places in sample.source:
            status = path.stat()
            text = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{bands}|{places}\n"
            digest.update(text.encode())
        if sample.window or sample.avoid:
            digest.update(f"{sample.window}|{sample.avoid}\n".encode())
    return digest.hexdigest()
