"""Terrain and ice of the demo landscape: valleys, a fractal elevation model, glaciers and their debris.

A tree of valleys is laid out first; the walls between them, cut by a soft minimum, become the ridges. Fractal
noise (spectral synthesis) roughens the walls, glaciers fill the valleys down to a terminus, and debris covers
them from the equilibrium line downwards, from the margins inwards and along medial moraines. All lengths are
metres, x runs east and y south.
"""

from dataclasses import dataclass, field

import numpy as np

from tools.demo_noise import COARSE, box_mean, enlarge, fractal_noise, look_up, sigmoid

BOTTOM = 4600.0  # elevation at the lower end of a trunk valley


@dataclass
class Valley:
    """One valley: its axis from head to mouth and the glacier in it.

    Attributes:
        points: (n, 2) x and y of the axis, evenly spaced, head first.
        arc: (n,) distance from the head along the axis.
        floor: (n,) elevation of the valley floor.
        half_width: (n,) half the width of the floor.
        terminus: arc length at which the glacier ends (beyond the last point: it joins another).
        moraines: medial moraines as (arc length of the start, signed distance in half-widths).
    """

    points: np.ndarray
    arc: np.ndarray
    floor: np.ndarray
    half_width: np.ndarray
    terminus: float
    moraines: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Terrain:
    """The landscape on the sub-pixel grid, every field (H, W) float32.

    Attributes:
        elevation: surface height, ice included.
        ice: share of the valley glaciers, 0..1.
        debris: share of that ice under debris, 0..1.
        wall: 0 on valley floors, 1 on the walls.
        across: signed distance from the flow line in half-widths.
        along: distance along the flow line.
        equilibrium: equilibrium line altitude (one number).
    """

    elevation: np.ndarray
    ice: np.ndarray
    debris: np.ndarray
    wall: np.ndarray
    across: np.ndarray
    along: np.ndarray
    equilibrium: float


def _resample(points: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the polyline at even steps of arc length, and that arc length."""
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    even = np.arange(0.0, arc[-1], step)
    return np.stack([np.interp(even, arc, points[:, axis]) for axis in (0, 1)], axis=1), even


def _trunk(rng: np.random.Generator, length: float, centre: float, reach: float) -> Valley:
    """Return a main valley along x: from beyond the left edge to beyond the right one."""
    x = np.linspace(-0.04, 1.06, 300)
    start, end = rng.uniform(-0.16, 0.16, 2) * reach
    bends = 0.07 * reach * np.sin(2 * np.pi * (rng.uniform(0.9, 1.6) * x + rng.uniform()))
    points, arc = _resample(np.stack([x * length, centre + start * (1 - x) + end * x + bends], axis=1), 30.0)
    part = arc / arc[-1]
    width = rng.uniform(0.092, 0.118) * reach
    return Valley(
        points=points,
        arc=arc,
        floor=BOTTOM + rng.uniform(0.105, 0.125) * length * (1 - part) ** 1.2,
        half_width=width * (1.0 + 0.5 * np.exp(-arc / (4 * width))) * (1.0 - 0.15 * part),
        terminus=rng.uniform(0.78, 0.90) * arc[-1],
    )


def _tributary(rng: np.random.Generator, trunk: Valley, part: float, side: float, reach: float) -> Valley:
    """Return a side valley that joins the trunk at a part of its length, and mark the moraine it feeds."""
    index = int(part * (len(trunk.points) - 2))
    joint, tangent = trunk.points[index], trunk.points[index + 1] - trunk.points[index]
    tangent = tangent / np.hypot(*tangent)
    normal = np.array([-tangent[1], tangent[0]]) * side
    head = joint + normal * rng.uniform(0.30, 0.46) * reach - tangent * rng.uniform(0.05, 0.30) * reach
    turn = joint + normal * rng.uniform(0.10, 0.18) * reach - tangent * rng.uniform(0.12, 0.2) * reach
    t = np.linspace(0.0, 1.0, 80)[:, None]
    points, arc = _resample((1 - t) ** 2 * head + 2 * t * (1 - t) * turn + t**2 * joint, 30.0)
    width = rng.uniform(0.55, 0.8) * trunk.half_width[-1]
    climb = rng.uniform(0.16, 0.24) * arc[-1]
    lift = rng.uniform(0.0, 15.0)
    valley = Valley(
        points=points,
        arc=arc,
        floor=trunk.floor[index] + lift + climb * (1 - arc / arc[-1]) ** 1.4,
        half_width=width * (1.0 + 0.8 * np.exp(-arc / (3 * width))),
        terminus=2 * arc[-1],
    )
    limit = np.interp(trunk.terminus, trunk.arc, trunk.floor) + rng.uniform(-20.0, 180.0)
    if valley.floor[-1] < limit:  # the glacier melts away before it reaches the trunk
        valley.terminus = float(np.interp(-limit, -valley.floor, valley.arc))
    else:
        trunk.moraines.append((trunk.arc[index], side * rng.uniform(0.15, 0.6)))
    return valley


def lay_valleys(rng: np.random.Generator, height: float, width: float) -> tuple[list[Valley], float]:
    """Return the valleys of a scene (metres) and the equilibrium line altitude of its glaciers."""
    long, short = max(height, width), min(height, width)
    trunks = max(1, round(short / 5000.0))
    reach = short / trunks
    valleys = []
    for number in range(trunks):
        trunk = _trunk(rng, long, (number + 0.5) * reach, reach)
        count = max(3, round(2.6 * long / reach))
        places = (np.arange(count) + rng.uniform(0.25, 0.75, count)) / count
        first = rng.choice([-1.0, 1.0])
        sides = [_tributary(rng, trunk, p, first * (-1) ** k, reach) for k, p in enumerate(places)]
        valleys += [trunk, *sides]
    part = rng.uniform(0.20, 0.27)
    equilibrium = float(np.interp(part, valleys[0].arc / valleys[0].arc[-1], valleys[0].floor))
    mirror = rng.random(2) < 0.5
    for valley in valleys:
        for axis, extent in ((0, long), (1, short)):
            if mirror[axis]:
                valley.points[:, axis] = extent - valley.points[:, axis]
        if height > width:
            valley.points = valley.points[:, ::-1].copy()
        if (int(mirror.sum()) + (height > width)) % 2:  # an odd number of reflections swaps left and right
            valley.moraines = [(start, -place) for start, place in valley.moraines]
    return valleys, equilibrium


def _distances(valley: Valley, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance from the axis, its sign (side) and arc length of the nearest point at (h, w) places."""
    points = valley.points.astype(np.float32)
    best = np.full(x.shape, np.inf, np.float32)
    nearest = np.zeros(x.shape, np.int32)
    for index, (px, py) in enumerate(points):
        squared = (x - px) ** 2 + (y - py) ** 2
        closer = squared < best
        best[closer] = squared[closer]
        nearest[closer] = index
    tangent = np.gradient(points, axis=0)[nearest]
    offset_x, offset_y = x - points[nearest, 0], y - points[nearest, 1]
    side = np.sign(tangent[..., 0] * offset_y - tangent[..., 1] * offset_x)
    return np.sqrt(best), side, valley.arc[nearest].astype(np.float32)


def _continuity(valley: Valley, arc: np.ndarray, step: float) -> np.ndarray:
    """Return 1 where the distance along a valley varies evenly, 0 around its ends and where it jumps."""
    jump = box_mean(np.hypot(*np.gradient(arc, step)).astype(np.float32), 7)
    ends = np.clip(np.minimum(arc, valley.arc[-1] - arc) / 200.0, 0.0, 1.0)
    return box_mean(ends / (1.0 + (jump / 2.0) ** 4), 3)


def _glacier(valley: Valley, distance: np.ndarray, arc: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Return how far inside the glacier each place lies, in metres (negative outside).

    The outline follows the valley, closes as a half ellipse at the terminus, and is bent by smooth noise.
    """
    half_width = np.interp(arc, valley.arc, valley.half_width).astype(np.float32)
    end_width = float(np.interp(valley.terminus, valley.arc, valley.half_width))
    tail = 2.5 * end_width
    narrowing = np.clip((arc - (valley.terminus - tail)) / tail, 0.0, 1.0)
    width = half_width * np.sqrt(1.0 - narrowing**2) * (1.0 + 0.10 * bend)
    return width - distance - np.maximum(arc - valley.terminus, 0.0)


def _debris_score(
    valley: Valley,
    across: np.ndarray,
    arc: np.ndarray,
    equilibrium: float,
    relief: float,
    patches: np.ndarray,
) -> np.ndarray:
    """Return the logit of the debris cover of one glacier; it grows downstream and towards the margins."""
    floor = np.interp(arc, valley.arc, valley.floor).astype(np.float32)
    below = equilibrium - floor
    apart = np.clip(arc / 250.0, 0.0, 1.0)  # around the head, "across the flow" has no meaning
    score = (below - 0.05 * relief) / (0.06 * relief) + apart * (3.5 * (across**2 - 0.5) + 1.5 * patches)
    for start, place in valley.moraines:
        stripe = np.exp(-(((across - place) / 0.08) ** 2)) * sigmoid((arc - start) / 60.0)
        score = score + 9.0 * stripe * sigmoid((below + 0.05 * relief) / (0.03 * relief))
    return score


def _walls(
    valleys: list[Valley], nearest: list, shape: tuple[int, int], reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return bare elevation and height above the valley floor: the soft minimum of the valleys' own walls."""
    top, blend = 0.22 * reach, 30.0
    total = np.zeros(nearest[0][0].shape, np.float64)
    floors = np.zeros_like(total)
    for valley, (distance, _, arc) in zip(valleys, nearest, strict=True):
        # Smoothed: inside a bend the nearest point of the axis jumps, and the floor must not.
        floor = box_mean(box_mean(np.interp(arc, valley.arc, valley.floor), 11), 11)
        half_width = np.interp(arc, valley.arc, valley.half_width)
        beyond = np.maximum(distance - half_width, 0.0)
        wall = 0.03 * half_width * (distance / half_width).clip(0, 1) ** 2
        wall = wall + top * (1.0 - np.exp(-beyond * 0.7 / top))
        weight = np.exp(-(floor + wall - BOTTOM) / blend)
        total += weight
        floors += weight * wall
    elevation = BOTTOM - blend * np.log(total)
    rise = floors / total
    smooth = [
        box_mean(box_mean(enlarge(f.astype(np.float32), shape), COARSE), COARSE) for f in (elevation, rise)
    ]
    return smooth[0], smooth[1]


def _relief_noise(
    rng: np.random.Generator, spacing: float, offset: np.ndarray, along: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Return rock relief in metres: fractal noise, and sharp spurs with gullies that run down the walls.

    Args:
        rng: source of the noise.
        spacing: sub-pixel size, metres.
        offset: (H, W) distance from the valley axis.
        along: (H, W) distance along it.
        share: (H, W) strength of the spurs, 0..1; they end at ridges, where the valley's coordinates end.
    """
    fractal = fractal_noise(rng, offset.shape, spacing, 1500.0, 4 * spacing, 1.2)
    texture = fractal_noise(rng, (512, 512), 1.0, 60.0, 3.0, 0.8)
    bent = along + 60.0 * fractal
    spurs = 0.7 - np.abs(look_up(texture, bent / 22.0, offset / 120.0))
    gullies = look_up(texture, bent / 5.0 + 200.0, offset / 45.0)
    return 52.0 * fractal + share * (55.0 * spurs + 8.0 * gullies)


def shape_terrain(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> Terrain:
    """Return the landscape of one scene on a grid of square sub-pixels.

    Args:
        rng: source of everything that varies between scenes.
        shape: rows and columns of the sub-pixel grid, multiples of `COARSE`.
        spacing: sub-pixel size, metres.
    """
    height, width = shape[0] * spacing, shape[1] * spacing
    valleys, equilibrium = lay_valleys(rng, height, width)
    reach = min(height, width) / max(1, round(min(height, width) / 5000.0))
    relief = 0.115 * max(height, width)
    step = COARSE * spacing
    y, x = np.mgrid[: shape[0] // COARSE + 2, : shape[1] // COARSE + 2].astype(np.float32) * np.float32(step)
    nearest = [_distances(valley, x, y) for valley in valleys]
    elevation, rise = _walls(valleys, nearest, shape, reach)

    bend = fractal_noise(rng, shape, spacing, 900.0, 120.0, 0.8)
    streaks = fractal_noise(rng, (512, 512), 1.0, 60.0, 3.0, 0.3)
    inside = np.full(shape, -np.inf, np.float32)
    crest = inside.copy()
    cover, across, along, offset, smooth = (np.zeros(shape, np.float32) for _ in range(5))
    for valley, (distance, side, arc) in zip(valleys, nearest, strict=True):
        d, s = enlarge(distance, shape), enlarge(arc, shape)
        signed = enlarge(side * distance, shape)
        signed = np.where(d < 2 * step, signed, np.copysign(d, signed))  # across a jump only the sign holds
        margin = _glacier(valley, d, s, bend)
        c = signed / np.interp(s, valley.arc, valley.half_width).astype(np.float32)
        patches = look_up(streaks, c * 24.0, s / 50.0)
        score = _debris_score(valley, c, s, equilibrium, relief, patches)
        owner = margin > inside
        crest = np.maximum(crest, np.minimum(inside, margin))  # the second largest so far
        calm = enlarge(_continuity(valley, arc, step), shape)
        fields = ((inside, margin), (cover, score), (across, c), (along, s), (offset, d), (smooth, calm))
        for target, value in fields:
            np.copyto(target, value, where=owner, casting="same_kind")

    ice = sigmoid(inside / 5.0)
    debris = sigmoid(1.3 * cover)
    wall = np.clip(rise / 160.0, 0.0, 1.0)
    rock = _relief_noise(rng, spacing, offset, along, smooth * np.clip((inside - crest) / 250.0, 0.0, 1.0))
    bare = elevation + (wall * rock + 0.03 * rock) * (1.0 - sigmoid(inside / 15.0))
    surface = bare + _ice_relief(rng, shape, spacing, inside, debris)
    return Terrain(surface, ice, debris, wall, across, along, equilibrium)


def _ice_relief(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, inside: np.ndarray, debris: np.ndarray
) -> np.ndarray:
    """Return the height of the ice above its bed, metres, with the hummocks that melt leaves in debris."""
    hummocks = fractal_noise(rng, shape, spacing, 130.0, 45.0, 0.5)
    gentle = fractal_noise(rng, shape, spacing, 400.0, 60.0, 1.0)
    depth = np.maximum(inside, 0.0)
    bulge = 38.0 * (1.0 - np.exp(-depth / 90.0))
    lateral_moraine = 8.0 * debris * np.exp(-(((inside + 28.0) / 16.0) ** 2))
    on_ice = sigmoid(inside / 8.0)
    return bulge + lateral_moraine + on_ice * (3.6 * hummocks * debris + 1.5 * gentle)
