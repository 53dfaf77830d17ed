"""What the pixels of all images say against a data set: the part that costs reading everything."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.data.checks import leak, real_file
from utils.data.dividing import Part
from utils.data.findings import ERROR, NOTE, WARNING, FileError, Finding, Report, attempt, of_files
from utils.data.pixels import PixelScan, scan_pixels
from utils.data.threads import thread_count

Scanned = Mapping[str, Sequence[tuple[Part, PixelScan]]]

# Valid share below which an image is nearly empty.
_NEARLY_EMPTY = 0.02
# Factor between an image's largest value and the usual one beyond which the scales seem to differ.
_OTHER_SCALE = 50


def read_pixels(
    parts: Mapping[str, Sequence[Part]], report: Report, workers: int | None = None, progress: bool = True
) -> dict[str, list[tuple[Part, PixelScan]]]:
    """Look at every pixel of every image.

    Args:
        parts: The images per split; one that is in several is read once.
        report: Gets the images that turn out to be damaged.
        workers: Threads; None takes the processors, at most eight.
        progress: Show a bar.
    """
    images = {str(part.image.path): part.image for group in parts.values() for part in group}
    pixels = sum(image.height * image.width for image in images.values())
    scans: dict[str, PixelScan] = {}
    with (
        tqdm(
            desc="reading images",
            total=pixels,
            unit="pixel",
            unit_scale=True,
            disable=not progress,
            leave=False,
        ) as bar,
        ThreadPoolExecutor(thread_count(workers)) as pool,
    ):
        look = partial(attempt, partial(scan_pixels, step=bar.update))
        for path, found in zip(images, pool.map(look, images.values()), strict=True):
            if isinstance(found, FileError):
                report(found)
            else:
                scans[path] = found
    return {
        split: [(part, scans[str(part.image.path)]) for part in group if str(part.image.path) in scans]
        for split, group in parts.items()
    }


def pixel_findings(scanned: Scanned, band_names: Sequence[str]) -> list[Finding]:
    """Return what is odd about the pixels of a data set."""
    return [
        *_copies_between(scanned),
        *_copies_inside(scanned),
        *_empty(scanned),
        *_constant(scanned),
        *_broken(scanned),
        *_still_bands(scanned, band_names),
        *_other_scale(scanned),
    ]


def _by_content(group: Sequence[tuple[Part, PixelScan]]) -> dict[str, dict[str, Part]]:
    """Return digest -> the files with it; images that show nothing are no copies of each other."""
    contents: dict[str, dict[str, Part]] = {}
    for part, scan in group:
        if scan.valid and not scan.constant:
            contents.setdefault(scan.digest, {})[real_file(part)] = part
    return contents


def _copies_between(scanned: Scanned) -> list[Finding]:
    contents = {split: _by_content(group) for split, group in scanned.items()}
    findings = []
    for one, other in combinations(contents, 2):
        found = []
        for digest in contents[other].keys() & contents[one].keys():
            originals = contents[one][digest]
            first = next(iter(originals.values()))
            # The very same file in both lists is told from the names.
            copies = [part for path, part in contents[other][digest].items() if path not in originals]
            found += [(str(part.image.path), _relation(part, first)) for part in copies]
        if found:
            text = f"{len(found)} images of {other} have the same pixels as images of {one}"
            todo = "take them out of one of the splits: the scores will be too good"
            findings.append(Finding(leak(one), "copies in two splits", text, todo, tuple(sorted(found))))
    return findings


def _copies_inside(scanned: Scanned) -> list[Finding]:
    findings = []
    for split, group in scanned.items():
        found = []
        for files in _by_content(group).values():
            first, *others = files.values()
            found += [(str(part.image.path), _relation(part, first)) for part in others]
        if found:
            text = f"{len(found)} images of {split} have the same pixels as another one there"
            findings.append(Finding(WARNING, "copies in a split", text, "keep one of each", tuple(found)))
    return findings


def _relation(part: Part, first: Part) -> str:
    same = part.label.counts == first.label.counts
    return f"as {Path(first.image.path).name}" + ("" if same else ", but with another label")


def _empty(scanned: Scanned) -> list[Finding]:
    findings = []
    for split, group in scanned.items():
        blank = [scan.path for _, scan in group if not scan.valid]
        if blank:
            severity = ERROR if len(blank) == len(group) else WARNING
            text = f"{len(blank)} of {len(group)} images of {split} are no-data everywhere"
            findings.append(Finding(severity, "no data", text, "take them out", of_files(blank)))
        few = [scan for _, scan in group if 0 < scan.valid < _NEARLY_EMPTY * scan.pixels]
        if few:
            text = f"{len(few)} of {len(group)} images of {split} are nearly empty"
            files = tuple((str(scan.path), f"{100 * scan.valid / scan.pixels:.2g} % valid") for scan in few)
            todo = "take them out, or check their no-data value"
            findings.append(Finding(WARNING, "nearly no data", text, todo, files))
    return findings


def _constant(scanned: Scanned) -> list[Finding]:
    findings = []
    for split, group in scanned.items():
        flat = [scan for _, scan in group if scan.constant]
        if flat:
            severity = ERROR if len(flat) == len(group) else WARNING
            text = f"{len(flat)} of {len(group)} images of {split} have one value everywhere"
            files = tuple((str(scan.path), _values(scan.minimum)) for scan in flat)
            todo = "take them out, or state the value as no-data in the files"
            findings.append(Finding(severity, "constant image", text, todo, files))
    return findings


def _values(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1])[:4])


def _broken(scanned: Scanned) -> list[Finding]:
    scans = _distinct(scanned)
    found = [scan for scan in scans if scan.broken]
    if not found:
        return []
    share = 100 * sum(scan.broken for scan in found) / sum(scan.pixels for scan in scans)
    text = f"{len(found)} images hold NaN or infinity, {share:.2g} % of all pixels: they are ignored"
    files = tuple((str(scan.path), f"{100 * scan.broken / scan.pixels:.2g} %") for scan in found)
    return [Finding(NOTE, "NaN", text, "", files)]


def _still_bands(scanned: Scanned, band_names: Sequence[str]) -> list[Finding]:
    scans = [scan for _, scan in scanned.get("train", ()) if scan.valid]
    if not scans or all(scan.constant for scan in scans):
        return []
    low, high = (
        choose([getattr(scan, name) for scan in scans], axis=0)
        for choose, name in ((np.min, "minimum"), (np.max, "maximum"))
    )
    still = [name for name, same in zip(band_names, low == high, strict=True) if same]
    text = f"bands that never vary in train: {', '.join(still)}"
    return [Finding(NOTE, "constant band", text, "they do no harm, and no good")] if still else []


def _other_scale(scanned: Scanned) -> list[Finding]:
    scans = [scan for scan in _distinct(scanned) if scan.valid and not scan.constant]
    tops = np.array([max(map(abs, (*scan.minimum, *scan.maximum))) for scan in scans])
    if len(tops) < 2:
        return []
    usual = float(np.median(tops))
    found = [
        (str(scan.path), f"up to {top:g}")
        for scan, top in zip(scans, tops, strict=True)
        if not usual / _OTHER_SCALE <= top <= usual * _OTHER_SCALE
    ]
    text = f"{len(found)} images have values of another scale; the usual largest value is {usual:g}"
    todo = "scale all images alike, and check their no-data value"
    return [Finding(WARNING, "scale", text, todo, tuple(found))] if found else []


def _distinct(scanned: Scanned) -> list[PixelScan]:
    return list({str(scan.path): scan for group in scanned.values() for _, scan in group}.values())
