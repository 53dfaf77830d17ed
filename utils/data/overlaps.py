"""Images of two splits that show the same place on the map."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from utils.data.dividing import Part
from utils.data.findings import NOTE, WARNING, Finding
from utils.data.raster import RasterInfo

# A smaller share of an image is the rounding of neighbours' borders.
_LEAST_SHARE = 0.005
# Of all images together: less is the seam between neighbours.
_MUCH = 0.01


def overlap_findings(parts: Mapping[str, Sequence[Part]]) -> list[Finding]:
    """Return which images of a split show places of another split, and how much of their area.

    Images are compared within one reference system, by the boxes around them.
    """
    boxes = {split: _boxes([part.image for part in group]) for split, group in parts.items()}
    findings = []
    for one, other in combinations(parts, 2):
        same = {str(part.image.path) for part in parts[one]}
        found, area, whole = [], 0.0, 0.0
        for crs, (images, own) in boxes[other].items():
            whole += float(_area(own).sum())
            if crs not in boxes[one]:
                continue
            shares = covered_shares(own, boxes[one][crs][1])
            # An image that is itself in both is told as such.
            shares[[str(image.path) in same for image in images]] = 0
            area += float((shares * _area(own)).sum())
            hits = np.flatnonzero(shares > _LEAST_SHARE)
            found += [(str(images[i].path), f"{100 * shares[i]:.0f} % of its area") for i in hits]
        if found:
            text = (
                f"{len(found)} of {len(parts[other])} images of {other} show places that {one} shows too, "
                f"{100 * area / whole:.2g} % of the georeferenced area"
            )
            todo = "divide by place, else the scores may be too good"
            severity = WARNING if area > _MUCH * whole else NOTE
            findings.append(Finding(severity, "places in two splits", text, todo, tuple(found)))
    return findings


def _boxes(images: Sequence[RasterInfo]) -> dict[str, tuple[list[RasterInfo], np.ndarray]]:
    """Return the images of each reference system and their boxes (N, 4): left, bottom, right, top."""
    groups: dict[str, list[RasterInfo]] = {}
    for image in images:
        if image.crs and image.transform is not None:
            groups.setdefault(image.crs, []).append(image)
    return {crs: (group, np.array([_box(image) for image in group])) for crs, group in groups.items()}


def _box(image: RasterInfo) -> tuple[float, float, float, float]:
    corners = np.array([(x, y, 1) for x in (0, image.width) for y in (0, image.height)]).T
    xs, ys, _ = np.reshape(image.transform, (3, 3)) @ corners
    return xs.min(), ys.min(), xs.max(), ys.max()


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def covered_shares(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share (0..1) of each box (N, 4) that the union of the other boxes (M, 4) covers."""
    others = others[np.argsort(others[:, 0])]
    widest = (others[:, 2] - others[:, 0]).max()
    # Only boxes that begin within the widest one's reach can touch.
    first = np.searchsorted(others[:, 0], boxes[:, 0] - widest)
    last = np.searchsorted(others[:, 0], boxes[:, 2])
    shares = np.zeros(len(boxes))
    for index, (box, start, end) in enumerate(zip(boxes, first, last, strict=True)):
        near = others[start:end]
        near = near[(near[:, 2] > box[0]) & (near[:, 1] < box[3]) & (near[:, 3] > box[1])]
        if len(near):
            shares[index] = _covered(box, near)
    return shares


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """Return the covered share of one box: cells of the grid of all borders are in or out as a whole."""
    cut = np.clip(others, box[[0, 1, 0, 1]], box[[2, 3, 2, 3]])
    cut = np.unique(cut, axis=0)
    xs, ys = (np.unique(np.concatenate((cut[:, a], cut[:, a + 2], box[[a, a + 2]]))) for a in (0, 1))
    inside = np.zeros((len(xs) - 1, len(ys) - 1), dtype=bool)
    for left, bottom, right, top in cut:
        x0, x1 = np.searchsorted(xs, (left, right))
        y0, y1 = np.searchsorted(ys, (bottom, top))
        inside[x0:x1, y0:y1] = True
    areas = np.diff(xs)[:, None] * np.diff(ys)
    return float((areas * inside).sum() / areas.sum())
