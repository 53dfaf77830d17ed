"""Pages that need nothing but themselves: pictures inside, no scripts, no requests."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from utils.files import replacing

_NUMBER = ' class="n"'  # of a cell that is flush right
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; color: #222; background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "Microsoft YaHei", "PingFang SC", sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 10px; padding-bottom: 4px; border-bottom: 1px solid #ddd; }
p.about { margin: 0 0 18px; color: #666; }
dl.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 0; }
dl.facts div { background: #f4f6f8; border-radius: 8px; padding: 10px 16px; min-width: 110px; }
dl.facts dt { color: #666; font-size: 13px; } dl.facts dd { margin: 0; font-size: 19px; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 4px 12px; border-bottom: 1px solid #e6e6e6; text-align: left; vertical-align: top; }
th { background: #f4f6f8; font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } figure { margin: 0 0 18px; } figcaption { color: #666; }
details { margin-top: 10px; } summary { cursor: pointer; color: #2f6db3; }
"""


def page(title: str, about: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        about: plain text of one line below it.
        sections: heading in plain text ("" for none) and content in HTML; empty contents are left out.
    """
    parts = [
        f"<h2>{escape(heading)}</h2>\n{content}" if heading else content
        for heading, content in sections
        if content
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="about">{escape(about)}</p>\n{body}\n</body>\n</html>\n'
    )


def write_page(path: Path, text: str) -> None:
    """Write a page; the file appears whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return the few numbers that a reader looks for first."""
    items = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(str(v))}</dd></div>" for n, v in pairs)
    return f'<dl class="facts">{items}</dl>'


def table(rows: Sequence[Sequence[object]], flush_left: int = 1) -> str:
    """Return a table whose first row is the heading; the first `flush_left` columns are text."""

    def line(row: Sequence[object], tag: str) -> str:
        cells = [
            f"<{tag}{_NUMBER if index >= flush_left else ''}>{escape(_text(cell))}</{tag}>"
            for index, cell in enumerate(row)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    head, *body = rows
    lines = "\n".join(line(row, "td") for row in body)
    return f'<div class="wide"><table>\n{line(head, "th")}\n{lines}\n</table></div>'


def picture(path: Path, caption: str = "", alt: str = "") -> str:
    """Return a PNG inside the page; nothing where there is no such file."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    alt = escape(alt or caption or path.stem)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}">{below}</figure>'


def folded(summary: str, content: str) -> str:
    """Return content that opens with a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>" if content else ""


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
