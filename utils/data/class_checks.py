"""What label values and class frequencies say against a data set."""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.data.class_table import all_values
from utils.data.dividing import Part, tallies
from utils.data.findings import ERROR, NOTE, WARNING, Finding, of_files
from utils.data.labels import Classes

Parts = Mapping[str, Sequence[Part]]

# Shares of the labelled pixels.
_RARE = 0.001
_COMMON = 0.99
# Fewer labels without a class than this share of a split are usual (sea in a coast's tiles, clouds).
_FEW = 0.05
_MOST_NAMES = 8


def class_findings(parts: Parts, counts: Mapping[str, np.ndarray], classes: Classes) -> list[Finding]:
    """Return what label values, and tallies per split, say against a data set."""
    return [
        *_saturated(parts, classes),
        *_shifted(parts, classes),
        *_missing({split: own[: classes.num_classes] for split, own in counts.items()}, classes),
        *_uneven(counts, classes),
        *_blank(parts, classes),
    ]


def _saturated(parts: Parts, classes: Classes) -> list[Finding]:
    """Find masks of 0 and 255 of which 255 is ignored, although it seems to be the second class."""
    if classes.num_classes != 2 or 255 not in classes.ignored or classes.kind != "number":
        return []
    every = [part.label for group in parts.values() for part in group]
    found = [scan for scan in every if set(scan.counts) in ({0, 255}, {255}) and scan.counts.get(255)]
    if not found:
        return []
    empty = not any(tallies(scan, classes)[1] for scan in every)
    text = f"{len(found)} labels hold only 0 and 255, and 255 is ignored"
    text += f", so {classes.names[1]} has no pixel at all" if empty else "; other labels hold 1"
    todo = 'if 255 is meant as the second class, give --LABEL_MAP "0=0,1=1,255=1"'
    files = tuple((str(scan.path), f"255 in {scan.counts[255]:,} pixels") for scan in found)
    return [Finding(ERROR if empty else WARNING, "labels 0 and 255", text, todo, files)]


def _shifted(parts: Parts, classes: Classes) -> list[Finding]:
    """Find labels that count their classes from 1."""
    if classes.kind != "number" or any(value != index for value, index in classes.table.items()):
        return []
    values = all_values([part.label for group in parts.values() for part in group])
    used = sorted(value for value, count in values.items() if count and value not in classes.ignored)
    count = classes.num_classes
    if len(used) < 2 or used != list(range(1, len(used) + 1)) or used[-1] < count - 1:
        return []
    text = f"labels hold the values 1..{used[-1]} and never 0: they seem to count from 1"
    text += f", and {classes.names[0]} has no pixel" if used[-1] < count else ""
    rules = ",".join(f"{value}={value - 1}" for value in used[:_MOST_NAMES])
    todo = f'if so, give --LABEL_MAP "0=ignore,{rules}{",..." if len(used) > _MOST_NAMES else ""}"'
    return [Finding(WARNING, "labels from 1", text, todo)]


def _missing(counts: Mapping[str, np.ndarray], classes: Classes) -> list[Finding]:
    """Find classes that a split lacks."""
    findings = []
    total = np.sum(list(counts.values()), axis=0)
    train = counts.get("train")
    alone = train is not None and np.count_nonzero(train) == 1 and classes.num_classes > 1
    if alone and not classes.multilabel:
        name = classes.names[int(train.argmax())]
        text = f"every labelled pixel of train is {name}: there is nothing to tell apart"
        findings.append(Finding(ERROR, "one class", text, "check the labels and what their values mean"))
    unseen = np.zeros(classes.num_classes, bool) if train is None else (train == 0) & (total > 0)
    if unseen.any():
        where = ", ".join(split for split, own in counts.items() if own[unseen].any())
        text = f"{_names(classes, unseen)} never occur in train, but in {where}: they cannot be learned"
        todo = "label some in train, divide the images anew, or map them to ignore"
        findings.append(Finding(WARNING, "class not in train", text, todo))
    for split, own in counts.items():
        lacking = (own == 0) & (total > 0)
        if split != "train" and lacking.any():
            text = f"{_names(classes, lacking)} never occur in {split}: they have no score there"
            findings.append(Finding(NOTE, "class not in split", text))
    if (total == 0).any() and total.any():
        text = f"{_names(classes, total == 0)} never occur"
        findings.append(Finding(NOTE, "class without pixels", text))
    return findings


def _uneven(counts: Mapping[str, np.ndarray], classes: Classes) -> list[Finding]:
    own = counts.get("train", next(iter(counts.values())))
    shares = own[: classes.num_classes] / classes.labelled(own).clip(min=1)
    if (shares > 0).sum() < 2:
        return []
    rare, most = (shares > 0) & (shares < _RARE), int(shares.argmax())
    parts = [f"{classes.names[i]} {100 * shares[i]:.2g} %" for i in np.flatnonzero(rare)[:_MOST_NAMES]]
    if shares[most] > _COMMON:
        parts.insert(0, f"{classes.names[most]} {100 * shares[most]:.1f} %")
    if not parts:
        return []
    text = f"very uneven classes: {', '.join(parts)} of the labelled pixels of train"
    return [Finding(NOTE, "uneven classes", text, "see --CLASS_WEIGHTS auto and --RARE_CLASS_SAMPLING")]


def _blank(parts: Parts, classes: Classes) -> list[Finding]:
    """Find labels without a pixel of any class."""
    findings = []
    for split, group in parts.items():
        blank = [
            part.label.path for part in group if part.label.read and not tallies(part.label, classes).any()
        ]
        if blank and len(blank) < len(group):
            text = f"{len(blank)} of {len(group)} labels of {split} hold nothing but ignored values"
            severity = NOTE if len(blank) < _FEW * len(group) else WARNING
            todo = "they teach nothing: take them out, or label them"
            findings.append(Finding(severity, "blank labels", text, todo, of_files(blank)))
    return findings


def _names(classes: Classes, chosen: np.ndarray) -> str:
    names = [classes.names[index] for index in np.flatnonzero(chosen)]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names)} of {len(chosen)} classes ({', '.join(names[:_MOST_NAMES])}{more})"
