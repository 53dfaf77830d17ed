"""What a data set consists of, as lines for a person and as plain values for programs."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from utils.data.checks import pixel_size
from utils.data.grids import crs_name
from utils.data.layout import DatasetInfo
from utils.data.pixel_checks import Scanned

_MOST = 6


def summary(data: DatasetInfo, scanned: Scanned) -> dict[str, object]:
    """Return counts, sizes, bands, places, values and classes as plain values for JSON."""
    images = list(
        {str(part.image.path): part.image for group in data.parts.values() for part in group}.values()
    )
    return {
        "layout": data.found,
        "images": {split: len(group) for split, group in data.splits.items()},
        "sizes": _counts(f"{image.height} x {image.width}" for image in images),
        "dtypes": _counts(image.dtype for image in images),
        "bands": list(data.band_names),
        "ranges": _ranges(scanned, data.bands),
        "crs": _counts(crs_name(image.crs) if image.crs else "none" for image in images),
        "pixel_sizes": _counts(f"{size:.3g}" for image in images if (size := pixel_size(image))),
        "valid": _valid(scanned),
        "label_values": {data.classes.text(v): n for v, n in sorted(data.value_pixels.items())},
        "classes": {
            split: {
                name: {"pixels": int(pixels), "images": int(images_)}
                for name, pixels, images_ in zip(data.classes.names, counts, shown, strict=True)
            }
            for split, (counts, shown) in _histogram(data).items()
        },
    }


def summary_rows(facts: Mapping[str, object]) -> list[list[str]]:
    """Return rows of name and text of what `summary` found; values per class have tables of their own."""
    rows = [["images", _joined(facts["images"], "{} {}")]]
    rows += [[name, _joined(facts[name], "{} ({})")] for name in ("sizes", "dtypes")]
    names, ranges = facts["bands"], facts["ranges"]
    texts = [f"{name} {low:g}..{high:g}" for name, (low, high) in zip(names, ranges, strict=False)] or names
    more = f" and {len(texts) - 2 * _MOST} more" if len(texts) > 2 * _MOST else ""
    rows.append(["bands", f"{len(names)}: {', '.join(texts[: 2 * _MOST])}{more}"])
    rows += [
        [title, _joined(facts[name], "{} ({})")]
        for name, title in (("crs", "CRS"), ("pixel_sizes", "pixel size"))
        if facts[name]
    ]
    if facts["valid"] is not None:
        rows.append(["valid pixels", f"{100 * facts['valid']:.4g} %"])
    return rows


def histogram_rows(data: DatasetInfo) -> list[list[str]]:
    """Return rows of each class that occurs: its share of the labelled pixels and its images, per split."""
    found = _histogram(data)
    rows = [["class", "name", *(text for split in found for text in (f"{split} pixels", f"{split} images"))]]
    for index, name in enumerate(data.classes.names):
        if not any(shown[index] for _, shown in found.values()):
            continue
        cells = []
        for split, (counts, shown) in found.items():
            share = counts[index] / max(int(data.labelled[split][index]), 1)
            cells += [f"{100 * share:.3g} %", str(shown[index])]
        rows.append([str(index), name, *cells])
    return rows


def _histogram(data: DatasetInfo) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pixels of each class (K), and samples that show it (K), per split."""
    result = {}
    for split, samples in data.splits.items():
        shown = np.zeros(data.classes.num_classes, dtype=np.int64)
        for sample in samples:
            shown[[index for index, _ in sample.class_counts]] += 1
        result[split] = data.label_counts[split], shown
    return result


def _ranges(scanned: Scanned, bands: int) -> list[list[float]]:
    scans = [scan for group in scanned.values() for _, scan in group if scan.valid]
    if not scans:
        return []
    low, high = np.min([s.minimum for s in scans], axis=0), np.max([s.maximum for s in scans], axis=0)
    return [[float(low[band]), float(high[band])] for band in range(bands)]


def _valid(scanned: Scanned) -> float | None:
    scans = [scan for group in scanned.values() for _, scan in group]
    return sum(scan.valid for scan in scans) / sum(scan.pixels for scan in scans) if scans else None


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _joined(counts: Mapping[str, int], form: str) -> str:
    texts = [form.format(name, count) for name, count in counts.items()]
    return ", ".join(texts[:_MOST]) + (f" and {len(texts) - _MOST} more" if len(texts) > _MOST else "")
