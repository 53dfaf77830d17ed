"""From a name on the command line to a network: one family, one file in `nets/models`, one builder.

Listing the names does not import torch; a family's file is imported when it is asked for.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nets.errors import UserError
from nets.option_ranges import refused_number

# Names people type for one version of a family.
ALIASES = {
    "bisenetv1": ("bisenet", {"version": "v1"}),
    "bisenetv2": ("bisenet", {"version": "v2"}),
    "deeplabv3": ("deeplab", {"version": "v3"}),
    "deeplabv3plus": ("deeplab", {"version": "v3plus"}),
}

_BUILDERS: dict[str, Callable] = {}


def register_model(builder: Callable) -> Callable:
    """Register `builder` under its name, which must be its file's; its arguments must be keywords."""
    name = builder.__name__
    if builder.__module__.rsplit(".", 1)[-1] != name:
        raise TypeError(f"builder {name} must stand in nets/models/{name}.py")
    if any(
        p.kind is not inspect.Parameter.KEYWORD_ONLY for p in inspect.signature(builder).parameters.values()
    ):
        raise TypeError(f"builder {name} must take keyword-only arguments")
    _BUILDERS[name] = builder
    return builder


def list_models() -> list[str]:
    """Return the names of all network families."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "models")]))


def plain(name: str) -> str:
    """Return a name without case, hyphens, underscores, blanks and with plus signs in words."""
    return re.sub(r"[-_\s]", "", name.lower()).replace("+", "plus")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest: a, b", or an empty string when nothing is near."""
    by_plain = {plain(each): each for each in known}
    found = difflib.get_close_matches(plain(name), by_plain, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(by_plain[each] for each in found)}" if found else ""


def find_model(name: str) -> tuple[str, dict]:
    """Return the family's name and the options that an alias implies.

    Raises:
        UserError: no such family.
    """
    families = {plain(each): (each, {}) for each in list_models()}
    families |= {plain(alias): target for alias, target in ALIASES.items()}
    if plain(name) not in families:
        raise UserError(
            f"no network is named {name!r}{nearest(name, [*list_models(), *ALIASES])}; "
            f"there are: {', '.join(list_models())}"
        )
    return families[plain(name)]


def get_builder(family: str) -> Callable:
    """Return the builder of a family, importing its file."""
    importlib.import_module(f"nets.models.{family}")
    return _BUILDERS[family]


def get_recipe(family: str) -> dict:
    """Return the RECIPE table of a family."""
    return importlib.import_module(f"nets.models.{family}").RECIPE


def create_model(name: str, *, bands: int, num_classes: int, task: str = "multiclass", **options: object):
    """Build a network with random weights and note in `model.blueprint` how it was built.

    Args:
        name: family or alias; case, hyphens, underscores and blanks do not matter.
        bands: bands of an image.
        num_classes: number of classes.
        task: "multiclass" or "multilabel".
        options: keywords of the family's builder; text is converted to the type in its signature.

    Raises:
        UserError: unknown family, option or value, or a task that the family has not; the message names the
            valid ones.
    """
    family, implied = find_model(name)
    builder = get_builder(family)
    signature = inspect.signature(builder)
    for option, value in implied.items():
        if options.setdefault(option, value) != value:
            raise UserError(
                f"{name} means {option}={value}, but {option}={options[option]} is given; drop one"
            )
    unknown = [option for option in options if option not in signature.parameters]
    if unknown:
        own = list(list_options(builder))
        raise UserError(
            f"{family} has no option {unknown[0]!r}{nearest(unknown[0], own)}; "
            f"it has: {', '.join(own) or 'none'}"
        )
    typed = {
        option: convert_option(family, signature.parameters[option], value)
        for option, value in options.items()
    }
    call = signature.bind(bands=bands, num_classes=num_classes, **typed)
    call.apply_defaults()  # today's defaults are kept with the checkpoint
    model = _build(family, builder, call.arguments, options)
    # What a builder decided itself is kept too: "auto" may one day mean another backbone.
    model.blueprint = {"name": family, "options": {**call.arguments, **model.decided}}
    if task != model.task:
        _set_task(model, family, task)
    return model


def _build(family: str, builder: Callable, arguments: dict, options: dict):
    """Build a network; options that do not fit each other, as lists of two lengths, are a user's mistake."""
    try:
        return builder(**arguments)
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
        if not options or isinstance(error, UserError):
            raise
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{family} cannot be built with {given}: {reason}") from error


def _set_task(model, family: str, task: str) -> None:
    """Make a network one for another task than its family's usual one."""
    if task not in model.tasks:
        raise UserError(f"task {task} is given; {family} is for {' or '.join(model.tasks)} alone")
    model.task = model.blueprint["options"]["task"] = task


class Allowed(NamedTuple):
    """What an option of a builder takes.

    Attributes:
        choices: the values that can be listed.
        words: all values, for people.
        text: whether any text is taken, as the name of a backbone.
        by_hand: whether people can set it; what is made of dicts is set by importers only.
    """

    choices: tuple[str, ...]
    words: str
    text: bool
    by_hand: bool


def describe_option(parameter: inspect.Parameter) -> Allowed:
    """Return what an option takes, by the type in the builder's signature."""
    kinds = _alternatives(parameter.annotation)
    if any(dict in (kind, *typing.get_args(kind)) for kind in kinds):
        return Allowed((), "set by importers only", text=False, by_hand=False)
    choices = [
        str(choice)
        for kind in kinds
        if typing.get_origin(kind) is typing.Literal
        for choice in typing.get_args(kind)
    ]
    words = " or ".join(_in_words(kind) for kind in kinds)
    return Allowed(tuple(choices), words, text=str in kinds, by_hand=True)


def list_options(builder: Callable) -> dict[str, inspect.Parameter]:
    """Return the options of a family that people set by --MODEL_OPTIONS."""
    return {
        name: parameter
        for name, parameter in inspect.signature(builder).parameters.items()
        if name not in ("bands", "num_classes", "backbone") and describe_option(parameter).by_hand
    }


def parse_model_options(text: str) -> dict[str, str]:
    """Split "key=value,..." into a dict; a value may hold commas ("decoder_channels=256,128,version=v3").

    Raises:
        UserError: a part without "=" or a key given twice.
    """
    options: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text) if text.strip() else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or key in options:
            raise UserError(f"--MODEL_OPTIONS {text!r}: {part.strip()!r} is not key=value, or given twice")
        options[key] = value
    return options


def convert_option(family: str, parameter: inspect.Parameter, value: object) -> object:
    """Return `value` as the type that the builder's signature states.

    Raises:
        UserError: the value does not fit; the message says what does.
    """
    for kind in _alternatives(parameter.annotation):
        try:
            typed = _convert(kind, value)
        except (KeyError, TypeError, ValueError):
            continue
        if refused := refused_number(parameter, typed):
            raise UserError(f"{family}: {parameter.name}={value} is given; it is {refused}")
        return typed
    allowed = describe_option(parameter)
    if not allowed.by_hand:
        raise UserError(f"{family}: {parameter.name}={value} is given; it is {allowed.words}, leave it out")
    raise UserError(f"{family}: {parameter.name}={value} is given; allowed: {allowed.words}")


def _alternatives(annotation: object) -> tuple:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        # None first: "none" must not become a string.
        return tuple(sorted(typing.get_args(annotation), key=lambda kind: kind is not type(None)))
    return (annotation,)


def _convert(kind: object, value: object) -> object:
    origin, text = typing.get_origin(kind), str(value).strip()
    if kind is type(None):
        if value is None or text.lower() == "none":
            return None
        raise ValueError
    if value is None:
        raise ValueError
    if origin is typing.Literal:
        return {plain(str(choice)): choice for choice in typing.get_args(kind)}[plain(text)]
    if kind is bool:
        words = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False}
        return words[text.lower()]
    if origin is tuple:
        parts = value if isinstance(value, (tuple, list)) else re.split(r"[,/+]", text)
        return tuple(_convert(typing.get_args(kind)[0], part) for part in parts)
    if kind is dict and not isinstance(value, dict):
        raise ValueError
    if kind is int and isinstance(value, float) and value != int(value):
        raise ValueError
    return kind(value)


def _in_words(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(str(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "whole numbers as in 1,2,3" if int in typing.get_args(kind) else "values separated by commas"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return names.get(kind, str(kind))
