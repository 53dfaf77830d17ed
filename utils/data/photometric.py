"""Random changes of pixel values, band by band, for any number of bands and any range of values.

All functions change a float image (C, h, w) in place; it is NaN where it is not valid, and stays so.
"""

import math
from typing import NamedTuple

import numpy as np

from utils.data.augment_level import Level

# Weights of red, green and blue in the brightness of a colour (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])
# Bytes that are changed at a time: few enough to stay in a processor's cache.
_CACHED = 2**19
# What leaves a colour as it is, and what makes it grey.
_SAME, _GREY = np.eye(3), np.tile(_LUMA, (3, 1))


class BandRanges(NamedTuple):
    """What is known of the bands' values.

    Attributes:
        mean: Of each band in the training set; zeros by default.
        std: Standard deviation of each band in the training set: the unit of brightness and noise.
        rgb: Which bands are red, green and blue, where the image has just these.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rgb: tuple[int, int, int] | None = None

    def means(self, bands: int) -> np.ndarray:
        """Return the means (C)."""
        return np.asarray(self.mean or (0.0,) * bands)

    def deviations(self, bands: int) -> np.ndarray:
        """Return the standard deviations (C)."""
        return np.asarray(self.std or (0.0,) * bands)


UNKNOWN = BandRanges()


def changes_values(level: Level) -> bool:
    """Return whether `vary` may do anything."""
    pieces = (level.brightness, level.contrast, level.gamma, level.color, level.blur, level.noise)
    return any(pieces) or level.band_dropout > 0


def vary(
    image: np.ndarray, valid: np.ndarray, level: Level, ranges: BandRanges, rng: np.random.Generator
) -> None:
    """Change the values as a level says, in a fixed order; each piece by its own draw."""
    if not valid.any():
        return
    if (level.brightness or level.contrast) and rng.random() < level.chance:
        _brightness_contrast(image, valid, level, ranges, rng)
    if level.gamma and rng.random() < level.chance:
        _gamma(image, level.gamma, ranges, rng)
    if level.color and ranges.rgb is not None:
        _color(image, level.color, ranges, rng)
    if level.blur and rng.random() < level.chance:
        image[:] = blur(image, valid, rng.uniform(0, level.blur))
    if level.noise and rng.random() < level.chance:
        _noise(image, level.noise, ranges, rng)
    if level.band_dropout:
        _drop_bands(image, valid, level.band_dropout, ranges, rng)


def _brightness_contrast(
    image: np.ndarray, valid: np.ndarray, level: Level, ranges: BandRanges, rng: np.random.Generator
) -> None:
    """Spread each band about its own mean and shift it."""
    bands = len(image)
    gain = rng.uniform(1 - level.contrast, 1 + level.contrast, bands)
    offset = rng.uniform(-level.brightness, level.brightness, bands) * ranges.deviations(bands)
    complete = valid.all()
    for band, factor, shift in zip(image, gain, offset, strict=True):
        mean = (band if complete else band[valid]).mean(dtype=np.float64)
        band *= factor
        band += shift + mean * (1.0 - factor)


def _gamma(image: np.ndarray, strength: float, ranges: BandRanges, rng: np.random.Generator) -> None:
    """Bend each band's values between two standard deviations below and above its mean; others stay."""
    bands = len(image)
    largest = math.log1p(strength)
    exponents = np.exp(rng.uniform(-largest, largest, bands))
    widths = 4 * ranges.deviations(bands)
    starts = ranges.means(bands) - widths / 2
    # Plain numbers: numpy's own would make float64 of float32.
    numbers = zip(starts.tolist(), widths.tolist(), exponents.tolist(), strict=True)
    for band, (start, width, exponent) in zip(image, numbers, strict=True):
        if width > 0:
            part = (band - start) / width
            inside = (part > 0) & (part < 1)
            np.copyto(band, start + width * part.clip(0, 1) ** exponent, where=inside)


def _color(image: np.ndarray, strength: float, ranges: BandRanges, rng: np.random.Generator) -> None:
    """Change brightness, contrast, saturation and hue, each with one half chance.

    Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, https://arxiv.org/abs/1512.02325 (its code's
    photometric distortion). Here saturation and hue are linear, about the grey axis, so that they have a
    meaning for any range of values and all four cost one product of matrices.
    """
    chosen = rng.random(4) < 0.5
    brightness, contrast, saturation, hue = np.where(chosen, rng.uniform(-strength, strength, 4), 0.0)
    order = list(ranges.rgb)
    # White: 8-bit pictures of the usual spread have it near 255.
    white = float((ranges.means(3) + 2 * ranges.deviations(3)).max())
    matrix = (1 + 0.5 * contrast) * _saturation(1 + 0.5 * saturation) @ _hue(math.radians(18 * hue))
    # Rows and columns of the matrix as the bands stand in the image.
    matrix = matrix[np.ix_(np.argsort(order), np.argsort(order))].astype(image.dtype)
    offset = image.dtype.type(brightness * white * 32 / 255)
    step = max(1, _CACHED // image[:, 0].nbytes)
    for top in range(0, image.shape[1], step):
        rows = image[:, top : top + step]
        colors = matrix @ rows.reshape(3, -1)
        colors += offset
        rows[...] = colors.reshape(rows.shape)


def _saturation(factor: float) -> np.ndarray:
    """Return the matrix that mixes a colour with its grey."""
    return factor * _SAME + (1 - factor) * _GREY


def _hue(angle: float) -> np.ndarray:
    """Return the rotation about the grey axis."""
    cosine, sine = math.cos(angle), math.sin(angle)
    third, root = (1 - cosine) / 3, sine / math.sqrt(3)
    plus, minus = third + root, third - root
    return np.array(
        [[cosine + third, minus, plus], [plus, cosine + third, minus], [minus, plus, cosine + third]]
    )


def blur(image: np.ndarray, valid: np.ndarray, sigma: float) -> np.ndarray:
    """Return a float image (C, h, w) after a Gaussian; each pixel is the mean of the valid ones about it.

    Args:
        image: Its values, anything where not valid.
        valid: (h, w); not valid pixels touch no other and stay as they are.
        sigma: Standard deviation in pixels.
    """
    radius = math.ceil(3 * sigma)
    if radius < 1:
        return image
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2).tolist()
    if valid.all():
        ones = (np.ones((1, side), image.dtype) for side in valid.shape)
        rows, columns = (_smooth(line, kernel, axis=1)[0] for line in ones)
        return _smooth(_smooth(image, kernel, axis=1), kernel, axis=2) / (rows[:, None] * columns)
    # The planes of the image and, last, the weight of the pixels that count.
    planes = np.concatenate([np.where(valid, image, 0), valid[None].astype(image.dtype)])
    planes = _smooth(_smooth(planes, kernel, axis=1), kernel, axis=2)
    return np.where(valid, planes[:-1] / np.where(valid, planes[-1], 1), image)


def _smooth(planes: np.ndarray, kernel: list[float], axis: int) -> np.ndarray:
    """Return the sums along an axis by a symmetric kernel, which is given from its middle on."""
    planes = np.moveaxis(planes, axis, 0)
    result = planes * kernel[0]
    for step, weight in enumerate(kernel[1:], start=1):
        weighted = planes * weight
        result[step:] += weighted[:-step]
        result[:-step] += weighted[step:]
    return np.moveaxis(result, 0, axis)


def _noise(image: np.ndarray, strength: float, ranges: BandRanges, rng: np.random.Generator) -> None:
    """Add Gaussian noise, every value its own."""
    sigma = rng.uniform(0, strength) * ranges.deviations(len(image))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * sigma.astype(image.dtype)[:, None, None]


def _drop_bands(
    image: np.ndarray, valid: np.ndarray, chance: float, ranges: BandRanges, rng: np.random.Generator
) -> None:
    """Replace bands by their means, which the network sees as zero; one band is always kept."""
    bands = len(image)
    dropped = rng.random(bands) < chance
    dropped[rng.integers(bands)] &= not dropped.all()
    for index in np.flatnonzero(dropped):
        image[index, valid] = ranges.means(bands)[index]
