"""Random fields and filters for the demo landscape, in numpy."""

import numpy as np

COARSE = 8  # smooth fields are computed on every eighth sub-pixel and interpolated


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing: float,
    longest: float,
    shortest: float,
    hurst: float,
) -> np.ndarray:
    """Return (H, W) noise of unit variance with a power-law spectrum between two wavelengths.

    Args:
        rng: source of the white noise.
        shape: rows and columns.
        spacing: distance of two samples, metres.
        longest: longest wavelength, metres.
        shortest: shortest wavelength, metres.
        hurst: Hurst exponent; amplitudes fall with wave number to the power of minus (hurst + 1).
    """
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    rows = np.fft.fftfreq(shape[0], spacing)[:, None]
    columns = np.fft.rfftfreq(shape[1], spacing)[None, :]
    wave_number = np.hypot(rows, columns)
    wave_number[0, 0] = 1.0
    gain = wave_number ** -(hurst + 1.0)
    # Soft edges of the pass band: a hard cut would ring.
    gain = gain * np.exp(-((wave_number * shortest) ** 4)) * np.exp(-((1.0 / (wave_number * longest)) ** 4))
    gain[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum * gain.astype(np.float32), s=shape)
    return (noise / noise.std()).astype(np.float32)


def look_up(texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a periodic texture at fractional positions (bilinear)."""
    height, width = texture.shape
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    top, left = top.astype(np.int32) % height, left.astype(np.int32) % width
    below, beside = (top + 1) % height, (left + 1) % width
    upper = texture[top, left] * (1 - right) + texture[top, beside] * right
    lower = texture[below, left] * (1 - right) + texture[below, beside] * right
    return upper * (1 - down) + lower * down


def sigmoid(score: np.ndarray) -> np.ndarray:
    """Return the logistic function, safe for large scores."""
    return 1.0 / (1.0 + np.exp(-np.clip(score, -30.0, 30.0)))


def box_mean(image: np.ndarray, size: int) -> np.ndarray:
    """Return the running mean over size x size samples; edges are repeated."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (size // 2 + 1, (size - 1) // 2)
        total = np.cumsum(np.pad(image, padding, mode="edge"), axis=axis, dtype=np.float64)
        upper, lower = np.split(total, [size], axis=axis)[1], total
        lower = lower[: image.shape[0]] if axis == 0 else lower[:, : image.shape[1]]
        image = ((upper - lower) / size).astype(np.float32)
    return image


def enlarge(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a field given on every `COARSE`-th sub-pixel on all of them (bilinear)."""
    rows = np.arange(shape[0], dtype=np.float32) / COARSE
    columns = np.arange(shape[1], dtype=np.float32) / COARSE
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = (rows - top)[:, None], columns - left
    wide = coarse[:, left] * (1 - right) + coarse[:, left + 1] * right
    return (wide[top] * (1 - down) + wide[top + 1] * down).astype(np.float32)
