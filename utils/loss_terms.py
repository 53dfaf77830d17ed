"""Which losses there are and how they are written: "ce+dice:0.5", "focal(gamma=3)".

Nothing here imports torch: a mistyped loss answers at once.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nets.registry import nearest


@dataclass(frozen=True)
class Parameter:
    """A number that a loss takes: what it is without being given, and its limits."""

    default: float
    minimum: float = 0.0
    maximum: float = math.inf


SMOOTHING = {"label_smoothing": Parameter(0.0, 0.0, 0.99)}
# Losses of (logits, masks), name -> parameters. The functions with their papers stand in `utils.training`.
PER_PIXEL = {
    "ce": SMOOTHING,
    "focal": {"gamma": Parameter(2.0, 0.0, 10.0)},
    "ohem": {"threshold": Parameter(0.7, 0.0, 1.0), "kept": Parameter(1 / 16), **SMOOTHING},
    "dice": {"smooth": Parameter(1.0)},
    "tversky": {"alpha": Parameter(0.3), "beta": Parameter(0.7), "smooth": Parameter(1.0)},
    "lovasz": {},
    "boundary": {"width": Parameter(3, 2, 99), "distance": Parameter(5, 1, 99)},
}
# Losses of all outputs of networks that predict masks, at points (Mask2Former) or focal (MaskFormer); each
# stands alone.
MASK = {"mask": {}, "mask_focal": {}}
# Losses of outputs that only some networks have; RECIPE tables name them.
SPECIAL = {
    "class_presence": {},
    "detail": {},
    "edges": {"width": Parameter(4, 1, 99)},
    "points": {},
    "near_edges": {
        "sure": Parameter(0.8, 0.0, 1.0),
        "threshold": Parameter(0.7, 0.0, 1.0),
        "kept": Parameter(1 / 16),
    },
}
MAIN = {**PER_PIXEL, **MASK}
EXTRA = {**PER_PIXEL, **SPECIAL}

TERM = re.compile(r"(?P<name>\w+)\s*(\((?P<parameters>[^()]*)\))?\s*(:(?P<weight>.*))?")


@dataclass(frozen=True)
class Term:
    """One loss of a weighted sum, with all its parameters."""

    name: str
    weight: float
    parameters: Mapping[str, float]


def parse_loss(text: str, known: Mapping[str, Mapping[str, Parameter]] = MAIN) -> tuple[Term, ...]:
    """Return the terms of a text such as "ce+dice:0.5" or "ohem(threshold=0.8)".

    Args:
        text: names, each with its parameters in brackets and ":" and its weight where that is not 1.
        known: the losses that may be named.

    Raises:
        ValueError: the text cannot be understood, or names a loss twice or one of masks beside others; the
            message is for the person who wrote it.
    """
    # A "+" in brackets belongs to a number.
    terms = tuple(_parse_term(part.strip(), known) for part in re.split(r"\+(?![^(]*\))", text.lower()))
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} is given; each loss can be written once")
    alone = next((name for name in names if name in MASK), None)
    if alone and (len(names) > 1 or terms[0].weight != 1):
        raise ValueError(f"{text!r} is given; {alone} is a sum of losses of its own and stands alone")
    return terms


def _parse_term(text: str, known: Mapping[str, Mapping[str, Parameter]]) -> Term:
    found = TERM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is given; a loss is written as in ce, dice:0.5 or focal(gamma=3):0.5")
    name = found["name"]
    if name not in known:
        raise ValueError(f"there is no loss {name!r}{nearest(name, known)}; {', '.join(known)} exist")
    weight = 1.0 if found["weight"] is None else _number(found["weight"], text)
    if weight == 0:
        raise ValueError(f"{text!r} is given; a weight is above 0")
    parameters = {key: parameter.default for key, parameter in known[name].items()}
    for part in (found["parameters"] or "").split(",") if (found["parameters"] or "").strip() else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in parameters:
            own = ", ".join(parameters) or "none"
            raise ValueError(f"{name} has no parameter {key!r}{nearest(key, parameters)}; it has: {own}")
        limits = known[name][key]
        parameters[key] = _number(value, f"{key}={value}", limits.minimum, limits.maximum)
    return Term(name, weight, parameters)


def _number(text: str, place: str, minimum: float = 0.0, maximum: float = math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (minimum <= value <= maximum and value < math.inf):
        most = f" and at most {maximum:g}" if maximum < math.inf else ""
        raise ValueError(f"{place!r} is given; a number of at least {minimum:g}{most} is wanted")
    return value
