"""The flags of an earlier run, read from its options.json; nothing here imports torch."""

import json
from collections.abc import Collection
from pathlib import Path

from nets.errors import UserError

# These belong to one run, not to what it does.
NOT_REPEATED = ("CONFIG", "RESUME", "RUN_NAME")


def config_words(given: str, defaults: dict, overruled: Collection[str]) -> list[str]:
    """Return the flags of an earlier run as words of a command line, those at their defaults left out.

    Args:
        given: path of options.json, or the folder of the run.
        defaults: flags of a run for which none is given.
        overruled: flags of the command line; --EPOCHS there also overrules the file's --MAX_ITERS.

    Raises:
        UserError: no such file, or it is no options.json.
    """
    path = Path(given) / "options.json" if Path(given).is_dir() else Path(given)
    try:
        flags = json.loads(path.read_text(encoding="utf-8"))["flags"].items()
    except FileNotFoundError as error:
        raise UserError(f"--CONFIG {given} does not exist; give the options.json of a run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--CONFIG {given} is no options.json that train.py has written") from error
    without = {*NOT_REPEATED, *overruled, *(("MAX_ITERS",) if "EPOCHS" in overruled else ())}
    return [
        f"--{name}" if value is True else f"--{name}={_text(value)}"
        for name, value in flags
        if name not in without and value is not None and value is not False and value != defaults.get(name)
    ]


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
