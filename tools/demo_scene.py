"""One synthetic satellite scene: surfaces, illumination, atmosphere and sensor over a demo landscape.

Ten bands as Sentinel-2's 10 m and 20 m bands see them. Debris on a glacier is the rock of the walls around
it: its spectrum is the same mixture of the same minerals, a little moister. Only shape, texture and
surroundings tell them apart. The 20 m bands are averaged over 2 x 2 pixels and repeated, as after resampling
to 10 m.
"""

from dataclasses import dataclass

import numpy as np

from tools.demo_noise import box_mean, fractal_noise, look_up, sigmoid
from tools.demo_terrain import Terrain, shape_terrain

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
FINE_BANDS = ("B02", "B03", "B04", "B08")  # 10 m; the others have 20 m
CLASSES = ("clean_ice", "debris_covered_ice", "rock")
PALETTE = ((150, 220, 255), (225, 125, 45), (110, 95, 85))  # colours of the classes
IGNORE = 255
NODATA = 0
PIXEL = 10.0  # metres
SUPERSAMPLING = 2  # sub-pixels along each side of a pixel

# Hemispherical reflectance of each surface, after published field and laboratory spectra, rounded.
SPECTRA = {
    "snow": (0.93, 0.93, 0.92, 0.91, 0.89, 0.87, 0.85, 0.83, 0.12, 0.10),
    "ice": (0.50, 0.51, 0.48, 0.45, 0.39, 0.35, 0.31, 0.28, 0.03, 0.02),
    "granite": (0.19, 0.21, 0.23, 0.24, 0.25, 0.25, 0.26, 0.26, 0.30, 0.28),
    "schist": (0.10, 0.11, 0.12, 0.13, 0.13, 0.14, 0.14, 0.15, 0.19, 0.18),
    "sandstone": (0.12, 0.16, 0.21, 0.23, 0.24, 0.25, 0.26, 0.27, 0.34, 0.31),
}
MOISTURE = (0.995, 0.995, 0.995, 0.99, 0.99, 0.99, 0.99, 0.99, 0.975, 0.97)  # debris over rock: melt water
PATH_RADIANCE = (0.060, 0.040, 0.025, 0.021, 0.017, 0.014, 0.011, 0.010, 0.002, 0.001)
SKY_LIGHT = (0.20, 0.15, 0.11, 0.10, 0.085, 0.075, 0.065, 0.060, 0.025, 0.015)  # diffuse over direct light
NOISE = (0.0022, 0.0020, 0.0020, 0.0022, 0.0024, 0.0025, 0.0026, 0.0024, 0.0024, 0.0026)


@dataclass
class Scene:
    """A rendered scene.

    Attributes:
        image: (10, H, W) uint16, top-of-atmosphere reflectance times 10000; 0 where there are no data.
        label: (H, W) uint8 class, 255 where there are no data.
    """

    image: np.ndarray
    label: np.ndarray


def _average(field: np.ndarray, size: int) -> np.ndarray:
    """Return the mean over blocks of size x size."""
    height, width = field.shape
    return field.reshape(height // size, size, width // size, size).mean(axis=(1, 3), dtype=np.float32)


def cast_shadow(
    elevation: np.ndarray, spacing: float, towards_sun: tuple[float, float], tangent: float
) -> np.ndarray:
    """Return 1 where the sun is seen and 0 where terrain hides it, with a soft edge, by marching towards it.

    Args:
        elevation: (H, W) heights, metres.
        spacing: pixel size, metres.
        towards_sun: unit vector to the sun on the ground as (rows, columns).
        tangent: tangent of the sun's elevation.
    """
    height, width = elevation.shape
    hidden = np.full(elevation.shape, -np.inf, np.float32)
    farthest = float(np.ptp(elevation)) / tangent / spacing
    distance = 1.0
    while distance < min(farthest, height + width):
        row, column = (round(distance * part) for part in towards_sun)
        if abs(row) >= height or abs(column) >= width:
            break
        here = (slice(max(-row, 0), height - max(row, 0)), slice(max(-column, 0), width - max(column, 0)))
        there = (slice(max(row, 0), height - max(-row, 0)), slice(max(column, 0), width - max(-column, 0)))
        rise = spacing * np.hypot(row, column) * tangent
        hidden[here] = np.maximum(hidden[here], elevation[there] - np.float32(rise))
        distance += max(1.0, 0.02 * distance)
    return sigmoid((elevation - hidden + 1.0) / 1.5)


def _snow(rng: np.random.Generator, terrain: Terrain, spacing: float) -> np.ndarray:
    """Return the share of seasonal and firn snow: high, gentle and shaded slopes; glaciers above their ELA.

    Snow fills small hollows, so the slope that counts is that of the smoothed ground.
    """
    down, right = np.gradient(box_mean(box_mean(terrain.elevation, 13), 13), spacing)
    steepness = np.hypot(down, right)
    north = down / np.maximum(steepness, 0.05)  # ground that rises southwards faces north
    noise = fractal_noise(rng, down.shape, spacing, 1200.0, 8 * spacing, 0.8)
    above = terrain.elevation - terrain.equilibrium
    walls = (above - 470.0) / 60.0 + 1.6 * north - (steepness - 0.8) / 0.15 + 1.2 * noise
    firn = (above - 5.0) / 25.0 + 1.2 * noise
    return terrain.ice * sigmoid(firn) + (1 - terrain.ice) * sigmoid(1.6 * np.minimum(walls, 6.0))


def _minerals(
    rng: np.random.Generator, terrain: Terrain, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of schist and of sandstone (granite is the rest) and a brightness factor.

    Rock varies with the strata and with scree; debris carries the same range in streaks along the flow.
    """
    shape = terrain.elevation.shape
    region = [fractal_noise(rng, shape, spacing, 2600.0, 3 * spacing, 0.45) for _ in range(2)]
    strata = np.sin(terrain.elevation / rng.uniform(22.0, 34.0) + 2.5 * region[1])
    streak = fractal_noise(rng, (512, 512), 1.0, 50.0, 3.0, 0.3)
    flow = [look_up(streak, terrain.across * k, terrain.along / 60.0 + 100.0 * k) for k in (20.0, 13.0)]
    speckle = fractal_noise(rng, shape, spacing, 90.0, 2 * spacing, 0.2)
    ice = terrain.ice
    first = ice * (0.55 * region[0] + 0.85 * flow[0]) + (1 - ice) * (
        0.9 * region[0] + 0.4 * strata * terrain.wall
    )
    second = ice * (0.55 * region[1] + 0.85 * flow[1]) + (1 - ice) * region[1]
    schist, sandstone = sigmoid(2.2 * first - 0.2), sigmoid(2.2 * second - 1.0)
    bright = np.exp(0.10 * speckle + ice * 0.10 * flow[1] + (1 - ice) * 0.10 * region[0])
    return schist * (1 - sandstone), sandstone, bright


def _illumination(
    rng: np.random.Generator, terrain: Terrain, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return direct light over that on flat ground, and sky light, of every sub-pixel.

    The sun stands in the south-east, as at a morning overpass in the northern hemisphere.
    """
    azimuth, height = np.deg2rad(rng.uniform(125.0, 165.0)), np.deg2rad(rng.uniform(42.0, 58.0))
    down, right = np.gradient(terrain.elevation, spacing)  # rows run south, columns east
    towards_sun = (-np.cos(azimuth), np.sin(azimuth))
    facing = -(down * towards_sun[0] + right * towards_sun[1])
    stretch = np.sqrt(1.0 + down**2 + right**2)
    incidence = (np.sin(height) + np.cos(height) * facing) / stretch
    pixels = cast_shadow(
        _average(terrain.elevation, SUPERSAMPLING), PIXEL, towards_sun, float(np.tan(height))
    )
    lit = np.repeat(np.repeat(pixels, SUPERSAMPLING, axis=0), SUPERSAMPLING, axis=1)
    direct = np.maximum(incidence, 0.0) / np.sin(height) * lit
    sky = (1.0 + 1.0 / stretch) / 2.0
    return direct.astype(np.float32), sky.astype(np.float32)


def _sense(rng: np.random.Generator, weights: dict, haze: np.ndarray) -> np.ndarray:
    """Return (10, H, W) uint16 from each surface's share of direct and of sky light per pixel."""
    image = np.empty((len(BANDS), *haze.shape), np.uint16)
    for index, band in enumerate(BANDS):
        value = PATH_RADIANCE[index] * haze
        for name, (direct, sky) in weights.items():
            mineral = name.removeprefix("debris_")
            reflectance = SPECTRA[mineral][index] * (MOISTURE[index] if mineral != name else 1.0)
            value = value + np.float32(reflectance) * (direct + np.float32(SKY_LIGHT[index]) * sky)
        if band not in FINE_BANDS:
            value = _average(value, 2)
        noise = rng.standard_normal(value.shape, dtype=np.float32)
        value = value + noise * (NOISE[index] + 0.006 * value)
        if band not in FINE_BANDS:
            value = np.repeat(np.repeat(value, 2, axis=0), 2, axis=1)
        image[index] = np.clip(np.rint(value * 10000.0), 1, 65535)  # 0 is kept for "no data"
    return image


def _swath_edge(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return True beyond the edge of the satellite's swath, a slanting line that cuts one corner or side."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    lean = np.tan(np.deg2rad(rng.uniform(8.0, 14.0)))
    reach = rng.uniform(0.05, 0.12) * shape[1]
    if rng.random() < 0.5:
        return columns + lean * rows < reach
    return (shape[1] - 1 - columns) + lean * (shape[0] - 1 - rows) < reach


def render_scene(seed: tuple[int, ...], shape: tuple[int, int]) -> Scene:
    """Return a scene of (rows, columns) pixels; the same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    spacing = PIXEL / SUPERSAMPLING
    terrain = shape_terrain(rng, (shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), spacing)
    direct, sky = _illumination(rng, terrain, spacing)
    snow = _snow(rng, terrain, spacing)
    debris = (1 - snow) * terrain.ice * terrain.debris
    bare_ice = (1 - snow) * terrain.ice * (1 - terrain.debris)
    rock = (1 - snow) * (1 - terrain.ice)
    schist, sandstone, bright = _minerals(rng, terrain, spacing)

    shares = {"snow": snow * 0.92, "ice": bare_ice}
    for prefix, cover in (("debris_", debris), ("", rock)):
        cover = cover * bright
        shares[prefix + "schist"] = cover * schist
        shares[prefix + "sandstone"] = cover * sandstone
        shares[prefix + "granite"] = cover * (1 - schist - sandstone)
    weights = {
        name: (_average(share * direct, SUPERSAMPLING), _average(share * sky, SUPERSAMPLING))
        for name, share in shares.items()
    }
    height = _average(terrain.elevation, SUPERSAMPLING)
    haze = rng.uniform(0.7, 1.2) * np.exp(-(height - height.mean()) / 2500.0)
    image = _sense(rng, weights, haze)
    areas = np.stack([_average(field, SUPERSAMPLING) for field in (snow + bare_ice, debris, rock)])
    label = areas.argmax(axis=0).astype(np.uint8)
    outside = _swath_edge(rng, shape)
    image[:, outside] = NODATA
    label[outside] = IGNORE
    return Scene(image, label)
