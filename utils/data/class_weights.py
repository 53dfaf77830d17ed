"""Loss weights of classes, from their frequencies or as given."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nets.errors import UserError
from nets.registry import nearest

WEIGHT_LIMITS = (0.1, 10.0)


def class_weights(
    counts: Sequence[int] | np.ndarray, how: str, names: Sequence[str] = ()
) -> list[float] | None:
    """Return a weight per class for the loss.

    Args:
        counts: Training pixels of each class (K).
        how: "none"; a name of `FORMULAS`; K numbers separated by commas; or a file: JSON with a list or with
            {"class name": number}, or text with K numbers or with lines "class name number".
        names: The classes' names, for files that use them.

    Raises:
        UserError: Not K numbers, or one that is negative or not finite, or all of them zero.
    """
    how = how.strip()
    if how.lower() == "none":
        return None
    counts = np.asarray(counts, dtype=np.float64)
    if how.lower() in FORMULAS:
        weights = np.ones(len(counts))
        present = counts > 0
        if present.any():
            weights[present] = FORMULAS[how.lower()](counts[present])
        return weights.tolist()
    if _is_file(how):
        return _checked(_file_weights(Path(how), names), how, len(counts))
    try:
        weights = [float(part) for part in how.split(",")]
    except ValueError:
        near = nearest(how, ["none", *FORMULAS])
        raise UserError(f"class weights {how!r} are not numbers{near}; {_allowed(len(counts))}") from None
    return _checked(weights, how, len(counts))


def _median_frequency(counts: np.ndarray) -> np.ndarray:
    """Return the median frequency divided by the class's, kept within `WEIGHT_LIMITS`.

    Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-scale
    Convolutional Architecture", ICCV 2015, https://arxiv.org/abs/1411.4734; over all pixels here.
    """
    return np.clip(np.median(counts) / counts, *WEIGHT_LIMITS)


def _inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """Return one over the frequency, with a mean of 1 and no limit: a class of few pixels outweighs all."""
    return _mean_one(1 / counts)


def _effective_number(counts: np.ndarray) -> np.ndarray:
    """Return one over the effective number of pixels, (1 - beta^n) / (1 - beta), with a mean of 1.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
    https://arxiv.org/abs/1901.05555. Their beta is (N - 1) / N, N being how many samples there are to be told
    apart; N is the mean number of pixels of a class here: rarer classes weigh by their frequency, commoner
    ones hardly differ.
    """
    log_beta = np.log1p(-1 / max(counts.mean(), 2.0))
    # 1 - beta is the same for all classes, so it does not matter.
    return _mean_one(1 / -np.expm1(counts * log_beta))


def _mean_one(weights: np.ndarray) -> np.ndarray:
    return weights / weights.mean()


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "auto": _median_frequency,
    "inverse": _inverse_frequency,
    "effective": _effective_number,
}


def _allowed(count: int) -> str:
    numbers = ",".join(["1.0"] * min(count, 3)) + (",..." if count > 3 else "")
    return f'allowed are none, {", ".join(FORMULAS)}, {count} numbers like "{numbers}", or a file of them'


def _checked(weights: list[float], source: str, count: int) -> list[float]:
    if len(weights) != count:
        raise UserError(f"{len(weights)} class weights were given for {count} classes; {_allowed(count)}")
    if not all(np.isfinite(weights)) or min(weights) < 0 or not any(weights):
        raise UserError(
            f"class weights {source!r} must be finite, not negative and not all zero; {_allowed(count)}"
        )
    return weights


def _is_file(text: str) -> bool:
    """Return whether a file is meant, be it there or not."""
    return Path(text).suffix.lower() in (".json", ".txt", ".csv") or Path(text).is_file()


def _file_weights(path: Path, names: Sequence[str]) -> list[float]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix.lower() == ".json" else _text_weights(text)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--CLASS_WEIGHTS {path} cannot be read ({reason}); give another file") from error
    numbers = (
        found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else [None]
    )
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        raise UserError(f'{path} must hold a list of numbers, or {{"class name": number}} for all classes')
    if isinstance(found, list):
        return [float(number) for number in found]
    unknown = [name for name in found if name not in names]
    if unknown:
        raise UserError(
            f"{path} names a class {unknown[0]!r} that is not there{nearest(unknown[0], names)}; "
            f"the classes are: {', '.join(names)}"
        )
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path} has no weight for {', '.join(missing)}; name every class")
    return [float(found[name]) for name in names]


def _text_weights(text: str) -> list[float] | dict[str, float]:
    """Read numbers in any arrangement, or lines of a name and its number."""
    words = text.replace(",", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        pass
    named = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        parts = line.replace(",", " ").replace(":", " ").rsplit(maxsplit=1)
        if len(parts) < 2:
            raise ValueError(f"line {line!r} is not a class name and a number")
        named[parts[0].strip()] = float(parts[1])
    return named
