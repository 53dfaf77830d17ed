"""What a flag is, and how values are read from text; nothing here imports torch."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

from utils.data.augment_level import parse_level
from utils.data.band_index import parse_band_index
from utils.data.scaling import parse_scaling
from utils.loss_terms import parse_loss

SCORE_KINDS = ("probabilities", "confidence", "entropy")
SCORE_TYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True)
class Flag:
    """One flag; `parse` makes its value from text, None makes it a switch."""

    name: str
    default: object
    help: str
    parse: Callable | None = str
    choices: tuple[str, ...] | None = None
    bare: object = None  # the value of the flag without an argument, where that is allowed
    metavar: str | None = None

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Add the flag to an argparse group."""
        if self.parse is None:
            group.add_argument(f"--{self.name}", action="store_true", help=self.help)
            return
        shown = "" if self.default is None else f" (default: {self.default})"
        more = {"nargs": "?", "const": self.bare} if self.bare is not None else {}
        group.add_argument(
            f"--{self.name}",
            type=self.parse,
            default=self.default,
            choices=self.choices,
            metavar=self.metavar or ("{" + ",".join(self.choices) + "}" if self.choices else "X"),
            help=(self.help + shown).replace("%", "%%"),
            **more,
        )


def number(kind: type, minimum: float, maximum: float = math.inf, *, above: bool = False) -> Callable:
    """Return a parser of an int or float within [minimum, maximum], or (minimum, maximum] with `above`."""

    def parse(text: str) -> float:
        value = kind(text)
        # Written so that NaN fails too.
        if not ((value > minimum if above else value >= minimum) and value <= maximum):
            limit = f"{'above' if above else 'at least'} {minimum:g}"
            limit += f" and at most {maximum:g}" if maximum < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} is given; it must be {limit}")
        return value

    parse.__name__ = kind.__name__  # argparse names the type in "invalid int value"
    return parse


def size_pair(text: str) -> tuple[int, int]:
    """Parse "512" or "384,512" as (height, width) in pixels."""
    try:
        parts = [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or min(parts) < 32:
        raise argparse.ArgumentTypeError(
            f"{text!r} is given; one number or H,W of at least 32 pixels is wanted"
        )
    return parts[0], parts[-1]


def patience(text: str) -> tuple[int, str]:
    """Parse "10" or "10,val_loss" as a number of validations and a column of the log."""
    count, _, column = (part.strip() for part in text.partition(","))
    if not count.isdecimal() or not int(count):
        raise argparse.ArgumentTypeError(
            f"{text!r} is given; a number of validations is wanted, and maybe a column: 10,val_loss"
        )
    return int(count), column or "mIoU"


def parallel_mode(text: str) -> str:
    """Parse the mode; the widespread spelling "muti" means multi."""
    mode = {"muti": "multi"}.get(text.lower(), text.lower())
    if mode not in ("single", "multi", "all"):
        raise argparse.ArgumentTypeError(f"{text!r} is given; single, multi and all exist")
    return mode


def as_given(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a parser that gives a text back as it was, if `parse` can understand it."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return check


augment = as_given(parse_level)
band_index = as_given(parse_band_index)
scaling = as_given(parse_scaling)


def loss(text: str) -> str:
    """Return a sum of losses as it was given, without blanks, if it can be understood."""
    try:
        parse_loss(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return "".join(text.lower().split())


def scores(text: str) -> tuple[tuple[str, str], ...]:
    """Parse "probabilities:uint8,entropy" to pairs of kind and type; without a type it is float32."""
    pairs = []
    for word in text.lower().split(","):
        kind, _, dtype = (part.strip() for part in word.partition(":"))
        if kind not in SCORE_KINDS or (dtype or "float32") not in SCORE_TYPES:
            raise argparse.ArgumentTypeError(
                f"{word!r} is given; {', '.join(SCORE_KINDS)} exist, each with :{', :'.join(SCORE_TYPES)}"
            )
        pairs.append((kind, dtype or "float32"))
    if len({kind for kind, _ in pairs}) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is given; each kind can be written once")
    return tuple(pairs)


def augmentations(text: str) -> tuple[str | float, ...]:
    """Parse "flip,rot,0.75" to words and factors of size; "none" is no augmentation."""
    words: list[str | float] = []
    for word in text.lower().split(","):
        word = word.strip()
        if word in ("flip", "rot"):
            words.append(word)
        elif word != "none":
            words.append(_factor(word))
    return tuple(dict.fromkeys(words))


def _factor(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0.25 <= value <= 4:
        raise argparse.ArgumentTypeError(
            f"{word!r} is given; flip, rot and factors of size from 0.25 to 4 exist"
        )
    return value
