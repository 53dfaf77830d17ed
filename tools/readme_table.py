"""Write the table of networks, made from the registry, into both READMEs.

`python tools/readme_table.py` writes it; with `--CHECK` its exit code says whether it is up to date.
"""

import inspect
import re
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.registry import get_builder, list_models  # noqa: E402

START, END = "<!-- networks: made by tools/readme_table.py -->", "<!-- networks: end -->"
HEADS = {
    "README.md": "| `--MODEL_TYPE` | idea | `--BACKBONE_TYPE` | `--MODEL_OPTIONS` | paper |",
    "README.zh-CN.md": "| `--MODEL_TYPE` | 思路 | `--BACKBONE_TYPE` | `--MODEL_OPTIONS` | 论文 |",
}
ANY = {"README.md": "any backbone, default", "README.zh-CN.md": "任意骨干网络 / 默认"}


def rows(readme: str) -> list[str]:
    """Return the table's lines for one README."""
    lines = [HEADS[readme], "|" + "---|" * 5]
    for family in list_models():
        builder = get_builder(family)
        doc = inspect.getmodule(builder).__doc__
        idea = doc.splitlines()[0].split(": ", 1)[-1].rstrip(".")
        link = re.search(r"https://arxiv\.org/abs/[\d.]+\d", doc).group(0)
        parameters = dict(inspect.signature(builder).parameters)
        for common in ("bands", "num_classes"):
            parameters.pop(common)
        backbone = parameters.pop("backbone")
        choices = _choices(backbone)
        sizes = ", ".join(choices) if choices else f"{ANY[readme]} `{backbone.default}`"
        options = ", ".join(_option(parameter) for parameter in parameters.values())
        lines.append(f"| `{family}` | {idea} | {sizes} | {options} | [{link.rsplit('/', 1)[-1]}]({link}) |")
    return lines


def _choices(parameter: inspect.Parameter) -> list[str]:
    found = [
        choice
        for kind in (parameter.annotation, *typing.get_args(parameter.annotation))
        if typing.get_origin(kind) is typing.Literal
        for choice in typing.get_args(kind)
    ]
    return [str(choice) for choice in found]


def _option(parameter: inspect.Parameter) -> str:
    choices = _choices(parameter)
    return f"`{parameter.name}={'/'.join(choices)}`" if choices else f"`{parameter.name}`"


def updated(readme: str) -> str:
    """Return the text of a README with today's table in it."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return "\n".join([before + START, *rows(readme), END + after])


def main() -> int:
    """Write or check both tables."""
    stale = 0
    for readme in HEADS:
        new = updated(readme)
        if new != (ROOT / readme).read_text(encoding="utf-8"):
            stale = 1
            if "--CHECK" not in sys.argv:
                (ROOT / readme).write_text(new, encoding="utf-8")
    return stale if "--CHECK" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
