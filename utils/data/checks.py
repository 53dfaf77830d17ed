"""What can be told against a data set from names, headers and label values, which training reads anyway."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from utils.data.class_checks import class_findings
from utils.data.class_table import LabelScan
from utils.data.dividing import Part
from utils.data.findings import ERROR, NOTE, WARNING, FileError, Finding, Report, of_files, told
from utils.data.grids import crs_name
from utils.data.labels import Classes
from utils.data.overlaps import overlap_findings
from utils.data.raster import RasterInfo

Parts = Mapping[str, Sequence[Part]]

# Pixel sizes that differ by less are the same scale.
_SAME_SCALE = 1.1
_MOST_SHOWN = 6


def check_bands(parts: dict[str, list[Part]], report: Report) -> dict[str, list[Part]]:
    """Return the images with the bands that most of them have; the others are reported.

    Args:
        parts: The images per split.
        report: Gets the images with another number.
    """
    images = [part.image for group in parts.values() for part in group]
    common = Counter(image.bands for image in images).most_common(1)[0][0]
    first = next(image for image in images if image.bands == common)
    for image in images:
        with told(report):
            _require_bands(image, first)
    kept = {split: [part for part in group if part.image.bands == common] for split, group in parts.items()}
    return {split: group for split, group in kept.items() if group}


def _require_bands(image: RasterInfo, first: RasterInfo) -> None:
    if image.bands != first.bands:
        text = (
            f"{image.path} has {image.bands} bands, {first.path} has {first.bands}; "
            "all images of a data set have the same bands"
        )
        raise FileError(text, "bands", image.path, f"{image.bands} instead of {first.bands}")


def check_label_bands(
    parts: dict[str, list[Part]], classes: Classes | None, report: Report
) -> dict[str, list[Part]]:
    """Return the images whose labels, where bands are classes, have as many as there are classes.

    Args:
        parts: The images per split.
        classes: Of a checkpoint; None takes the number of bands that most labels have.
        report: Gets the others.
    """
    labels = [part.label for group in parts.values() for part in group]
    common = Counter(len(label.names) for label in labels).most_common(1)[0][0]
    wanted = classes.num_classes if classes is not None and classes.multilabel else common
    for label in labels:
        with told(report):
            _require_classes(label, wanted)
    kept = {s: [part for part in group if len(part.label.names) == wanted] for s, group in parts.items()}
    return {split: group for split, group in kept.items() if group}


def _require_classes(label: LabelScan, wanted: int) -> None:
    if len(label.names) != wanted:
        text = f"{label.path} has {len(label.names)} bands and {wanted} are wanted, one for each class"
        raise FileError(text, "label bands", label.path, f"{len(label.names)} instead of {wanted}")


def cheap_findings(parts: Parts, counts: Mapping[str, np.ndarray], classes: Classes) -> tuple[Finding, ...]:
    """Return what is odd about a data set as far as names, headers and label values tell.

    Args:
        parts: Headers and label values of every file, per split.
        counts: Tallies per split, after scenes were divided.
        classes: Meaning of the label values.
    """
    images = [part.image for group in parts.values() for part in group]
    return (
        *_repeated(parts),
        *class_findings(parts, counts, classes),
        *_unlike("dtypes", "different dtypes", images, _dtype, "check that they share one scale"),
        *_unlike(
            "band names", "different names of bands", images, _names, "check that the order is the same"
        ),
        *_places(images),
        *overlap_findings(parts),
    )


def _repeated(parts: Parts) -> list[Finding]:
    """Find files that stand in two splits, or twice in one."""
    files = {split: {real_file(part): part for part in group} for split, group in parts.items()}
    findings = []
    for one, other in combinations(files, 2):
        shared = [part.image.path for path, part in files[one].items() if path in files[other]]
        if shared:
            text = f"{len(shared)} images are in both {one} and {other}"
            todo = "take them out of one of them: the scores will be too good"
            findings.append(Finding(leak(one), "image in two splits", text, todo, of_files(shared)))
    for split, group in parts.items():
        counts = Counter(map(real_file, group))
        twice = [files[split][path].image.path for path, count in counts.items() if count > 1]
        if twice:
            text = f"{len(twice)} images are in {split} more than once"
            findings.append(Finding(WARNING, "image twice", text, "list each once", of_files(twice)))
    return findings


def real_file(part: Part) -> str:
    """Return a name that is the same for all links to one image."""
    return str(Path(part.image.path).resolve())


def leak(split: str) -> str:
    """Return how bad it is that another split repeats this one: val in test harms no training."""
    return ERROR if split == "train" else WARNING


def _unlike(
    kind: str, what: str, images: Sequence[RasterInfo], key: Callable[[RasterInfo], str], todo: str
) -> list[Finding]:
    groups: dict[str, list[RasterInfo]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    if len(groups) < 2:
        return []
    return [Finding(WARNING, kind, f"images have {what} ({_counted(groups)})", todo, _rarest(groups))]


def _counted(groups: Mapping[str, Sequence[RasterInfo]]) -> str:
    """Return the largest groups and how many images are in each."""
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))
    text = ", ".join(f"{name} in {len(group)}" for name, group in largest[:_MOST_SHOWN])
    return f"{text}, ..." if len(groups) > _MOST_SHOWN else text


def _rarest(groups: Mapping[str, Sequence[RasterInfo]]) -> tuple[tuple[str, str], ...]:
    """Return the images outside the largest group."""
    common = max(groups, key=lambda name: len(groups[name]))
    return tuple(
        (str(image.path), name) for name, group in groups.items() if name != common for image in group
    )


def _dtype(image: RasterInfo) -> str:
    return image.dtype


def _names(image: RasterInfo) -> str:
    return " ".join(name or "-" for name in image.band_names[:_MOST_SHOWN])


def _places(images: Sequence[RasterInfo]) -> list[Finding]:
    """Compare reference systems and pixel sizes."""
    groups: dict[str, list[RasterInfo]] = {}
    for image in images:
        groups.setdefault(image.crs or "", []).append(image)
    known = {wkt: CRS.from_wkt(wkt) for wkt in groups if wkt}
    units = {wkt: "degrees" if crs.is_geographic else crs.linear_units for wkt, crs in known.items()}
    findings = []
    if len(groups) > 1:
        named: dict[str, list[RasterInfo]] = {}
        for wkt, group in groups.items():
            named.setdefault(crs_name(wkt) if wkt else "none", []).extend(group)
        # Neighbouring zones of one projection are usual; degrees beside metres, or nothing, are not.
        odd = "" in groups or len(set(units.values())) > 1
        text = f"images have {len(named)} coordinate reference systems ({_counted(named)})"
        todo = "check that all are meant" if odd else ""
        findings.append(Finding(WARNING if odd else NOTE, "CRS", text, todo, _rarest(named) if odd else ()))
    for unit in sorted(set(units.values())):
        here = [image for wkt, group in groups.items() if units.get(wkt) == unit for image in group]
        findings += _scales(here, unit)
    return findings


def pixel_size(image: RasterInfo) -> float | None:
    """Return the side of a pixel in units of the map, None where the file does not tell."""
    return None if image.transform is None else abs(image.transform.determinant) ** 0.5


def _scales(images: Sequence[RasterInfo], unit: str) -> list[Finding]:
    sizes = [size for image in images if (size := pixel_size(image))]
    if not sizes or max(sizes) <= _SAME_SCALE * min(sizes):
        return []
    groups: dict[str, list[RasterInfo]] = {}
    for image in images:
        groups.setdefault(f"{pixel_size(image) or 0:.3g} {unit}", []).append(image)
    text = f"images have different pixel sizes ({_counted(groups)})"
    return [Finding(WARNING, "pixel size", text, "resample them to one size", _rarest(groups))]
