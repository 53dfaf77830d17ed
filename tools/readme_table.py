"""Write the table of networks, made from the registry, into both READMEs.

`python tools/readme_table.py` writes it; with `--CHECK` its exit code says whether it is up to date.
"""

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.registry import describe_option, get_builder, list_models, list_options  # noqa: E402
from tools.ideas_zh import IDEAS  # noqa: E402

START, END = "<!-- networks: made by tools/readme_table.py -->", "<!-- networks: end -->"
HEADS = {
    "README.md": "| `--MODEL_TYPE` | idea | `--BACKBONE_TYPE` | `--MODEL_OPTIONS` | paper |",
    "README.zh-CN.md": "| `--MODEL_TYPE` | 思路 | `--BACKBONE_TYPE` | `--MODEL_OPTIONS` | 论文 |",
}
TRANSLATED = {"README.zh-CN.md": IDEAS}
ANY = {"README.md": "any backbone, default", "README.zh-CN.md": "任意骨干网络 / 默认"}

OTHERS = {
    "eomt": {
        "README.md": "timm's other DINOv2 with registers and DINOv3, default",
        "README.zh-CN.md": "timm 中其他带 register 的 DINOv2 和 DINOv3 / 默认",
    }
}


def rows(readme: str) -> list[str]:
    """Return the table's lines for one README."""
    lines = [HEADS[readme], "|" + "---|" * 5]
    for family in list_models():
        builder = get_builder(family)
        doc = inspect.getmodule(builder).__doc__
        idea = doc.splitlines()[0].split(": ", 1)[-1].rstrip(".")
        idea = TRANSLATED.get(readme, {}).get(family, idea)
        label, link = paper(doc)
        backbone = inspect.signature(builder).parameters["backbone"]
        allowed = describe_option(backbone)
        any_other = [f"{OTHERS.get(family, ANY)[readme]} `{backbone.default}`"] if allowed.text else []
        sizes = ", ".join([*allowed.choices, *any_other])
        options = ", ".join(_option(parameter) for parameter in list_options(builder).values())
        lines.append(f"| `{family}` | {idea} | {sizes} | {options} | [{label}]({link}) |")
    return lines


def paper(doc: str) -> tuple[str, str]:
    """Return number or conference, and link, of the first paper in the text of a family's file."""
    preprint = re.search(r"https://arxiv\.org/abs/([\d.]+\d)", doc)
    if preprint:
        return preprint.group(1), preprint.group(0)
    return re.search(r"([A-Z]{4}|IEEE Access) \d{4}", doc).group(0), re.search(r"https://\S+", doc).group(0)


def _option(parameter: inspect.Parameter) -> str:
    choices = describe_option(parameter).choices
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
