"""`--LABEL_MAP`: what the user says that label values or colours mean."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nets.errors import UserError
from utils.data.labels import pack_color, parse_color, unpack_color, value_text

IGNORE_WORDS = ("ignore", "ignored", "void", "-1")
EXAMPLE = 'write it like "0=ignore,1=0,2=water" or "#ff0000=building,*=ignore", or name a JSON or CSV file'
_VALUE_COLUMNS = ("value", "label", "color", "colour")
_CLASS_COLUMNS = ("class", "name", "target")


@dataclass(frozen=True)
class Rule:
    """One line of a label map.

    Attributes:
        value: Label value or packed colour; None stands for all that no other rule names.
        is_color: The value was written as a colour.
        target: Class id, class name, or None for "ignore".
    """

    value: int | None
    is_color: bool
    target: int | str | None


def parse_label_map(text: str) -> tuple[Rule, ...]:
    """Parse `--LABEL_MAP`: the rules themselves, or the name of a .json or .csv file that holds them.

    JSON is an object {"0": "ignore", "#ff0000": "building"}; CSV has the columns value and class, or r, g, b
    and name.

    Raises:
        UserError: unreadable, no rule, the same value twice, or a word that is no value.
    """
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix in (".json", ".csv"):
        pairs = _read_pairs(path, suffix)
    else:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        pairs = [tuple(word.strip() for word in part.partition("=")[::2]) for part in parts]
    if not pairs:
        raise UserError(f"--LABEL_MAP {text!r} holds no rule; {EXAMPLE}")
    rules = tuple(_rule(text, key, target) for key, target in pairs)
    keys = [(rule.value, rule.is_color) for rule in rules]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        value = "*" if twice[0] is None else value_text(twice[0], "color" if twice[1] else "number")
        raise UserError(f"--LABEL_MAP {text!r} says twice what {value} means; say it once")
    return rules


def _rule(text: str, key: str, target: str) -> Rule:
    color = parse_color(key)
    if target == "" or not (key == "*" or color is not None or re.fullmatch(r"-?\d+", key)):
        raise UserError(f"--LABEL_MAP {text!r}: {key}={target} is no rule; {EXAMPLE}")
    value = None if key == "*" else int(key) if color is None else color
    if target.lower() in IGNORE_WORDS:
        return Rule(value, color is not None, None)
    return Rule(value, color is not None, int(target) if target.isdigit() else target)


def _read_pairs(path: Path, suffix: str) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if suffix == ".json" else list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"--LABEL_MAP {path} cannot be read ({' '.join(str(error).split())}); {EXAMPLE}"
        ) from error
    if suffix == ".csv":
        return [_csv_pair(path, row) for row in content]
    if not isinstance(content, dict):
        raise UserError(
            f'--LABEL_MAP {path} holds a {type(content).__name__}; an object like {{"0": "ignore"}}'
        )
    return [
        (str(key).strip(), "ignore" if target is None else str(target)) for key, target in content.items()
    ]


def _csv_pair(path: Path, row: dict[str, str]) -> tuple[str, str]:
    cells = {(key or "").strip().lower(): (value or "").strip() for key, value in row.items() if key}
    target = next((cells[key] for key in _CLASS_COLUMNS if cells.get(key)), "")
    value = next((cells[key] for key in _VALUE_COLUMNS if cells.get(key)), "")
    if not value and all(cells.get(key, "").isdigit() for key in "rgb"):
        value = f"#{pack_color([min(int(cells[key]), 255) for key in 'rgb']):06x}"
    if not value or not target:
        columns = ", ".join(key for key in cells)
        raise UserError(
            f"--LABEL_MAP {path} has the columns {columns}; value and class, or r, g, b and name are wanted"
        )
    return value, target


def resolve_values(
    rules: Sequence[Rule],
    seen: Sequence[int],
    by_color: bool,
    palette: dict[int, tuple[int, int, int]] | None,
) -> dict[int, int | str | None]:
    """Return label value -> target for the labels at hand.

    Args:
        rules: The label map.
        seen: All values in the labels; "*" stands for those that no rule names.
        by_color: The labels hold packed colours.
        palette: Colour table of the labels, by which rules may name values too.
    """
    targets: dict[int, int | str | None] = {}
    for rule in rules:
        if rule.value is None:
            continue
        targets[_value(rule, by_color, palette)] = rule.target
    rest = next((rule for rule in rules if rule.value is None), None)
    if rest is not None:
        targets |= {value: rest.target for value in seen if value not in targets}
    return targets


def _value(rule: Rule, by_color: bool, palette: dict[int, tuple[int, int, int]] | None) -> int:
    if rule.is_color == by_color:
        return rule.value
    if by_color:
        if 0 <= rule.value <= 255:  # a grey label that was saved as RGB
            return pack_color((rule.value,) * 3)
    else:
        found = [index for index, color in (palette or {}).items() if color == unpack_color(rule.value)]
        if found:
            return found[0]
    value = value_text(rule.value, "color" if rule.is_color else "number")
    kind = "colours" if by_color else "numbers"
    raise UserError(f"--LABEL_MAP names {value}, but the labels hold {kind}; write them like that")
