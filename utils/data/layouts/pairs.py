"""Tables of pairs: train.csv with a column of images and one of labels, or lists of two paths per line."""

import csv
import io
from pathlib import Path

from nets.errors import UserError
from utils.data.findings import FileError, told
from utils.data.layouts.base import SPLITS, Entry, Layout, Request, is_raster, named_splits, read_lines

IMAGE_COLUMNS = (
    "image",
    "images",
    "img",
    "image_path",
    "img_path",
    "image_file",
    "filename",
    "file",
    "input",
    "x",
)
LABEL_COLUMNS = (
    *("label", "labels", "mask", "masks", "label_path", "mask_path", "label_file", "annotation", "ann"),
    *("annotation_path", "target", "gt", "seg", "segmentation", "y"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "fold")


def read_csv(request: Request) -> Layout | None:
    """Read train.csv and its like, one CSV with a column `split`, or text lists of two paths per line."""
    tables = _tables(request.root)
    if not tables:
        return None
    base = request.root if request.root.is_dir() else request.root.parent
    splits: dict[str, list[Entry]] = {}
    sources = {}
    for split, path in tables.items():
        for number, (image, label, named) in enumerate(read_pairs(path), start=1):
            group = _split_of(named, split, path)
            sources[group] = str(path)
            with told(request.report):
                files = [
                    _resolve(name, base, path, f"line {number}", role)
                    for name, role in ((image, "image"), (label, "label"))
                ]
                splits.setdefault(group, []).append(Entry(_name(files[0], base), *files))
    files = ", ".join(path.name for path in tables.values())
    return Layout("csv", f"pairs in {files}", splits, sources=sources)


def _tables(root: Path) -> dict[str, Path]:
    if root.is_file():
        return {"train": root} if root.suffix.lower() in (".csv", ".txt") and is_pair_table(root) else {}
    for suffix in (".csv", ".txt"):
        named = {split: path for split, path in named_splits(root, suffix).items() if is_pair_table(path)}
        if "train" in named:
            return named
    others = [path for path in sorted(root.glob("*.csv")) if is_pair_table(path)] if root.is_dir() else []
    return {"train": others[0]} if len(others) == 1 else {}


def is_pair_table(path: Path) -> bool:
    """Tell whether a file is a table of images and labels, by its first line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = next((line.strip() for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return False
    cells = _cells(line)
    return _columns(cells) is not None or _two_paths(cells)


def read_pairs(path: Path) -> list[tuple[str, str, str]]:
    """Return (image, label, split or "") of each line of a table."""
    lines = read_lines(path)
    columns = _columns(_cells(lines[0]))
    rows = [_cells(line) for line in (lines[1:] if columns else lines)]
    image, label, split = columns or (0, 1, None)
    for number, row in enumerate(rows, start=1 + bool(columns)):
        if len(row) <= max(image, label):
            raise UserError(
                f"{path}, line {number}: an image and a label are wanted, it holds {len(row)} cell(s)"
            )
    if not rows:
        raise UserError(f"{path} holds no pair; write an image and a label per line")
    return [
        (row[image], row[label], row[split] if split is not None and split < len(row) else "") for row in rows
    ]


def _cells(line: str) -> list[str]:
    """Split a line at the separator that it uses: comma, semicolon, tab or blank."""
    separator = next((mark for mark in (",", ";", "\t") if mark in line), " ")
    cells = next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [])
    return [cell.strip() for cell in cells if cell.strip() or separator != " "]


def _columns(cells: list[str]) -> tuple[int, int, int | None] | None:
    names = [cell.lower() for cell in cells]
    image, label, split = (
        next((names.index(name) for name in known if name in names), None)
        for known in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    return None if image is None or label is None else (image, label, split)


def _two_paths(cells: list[str]) -> bool:
    return len(cells) == 2 and all(is_raster(Path(cell)) for cell in cells)


def _split_of(named: str, split: str, path: Path) -> str:
    if not named:
        return split
    for known, spellings in SPLITS.items():
        if named.lower() in spellings:
            return known
    raise UserError(f"{path}: the split {named!r} is unknown; write train, val or test")


def _name(image: Path, base: Path) -> str:
    path = image.relative_to(base) if image.is_relative_to(base) else Path(image.name)
    return path.with_suffix("").as_posix()


def _resolve(name: str, base: Path, table: Path, line: str, role: str) -> Path:
    """Return the file of a path: absolute, below the data set, or with leading folders of another machine."""
    parts = Path(name.replace("\\", "/")).parts
    if Path(name).is_file():
        return Path(name)
    for folder in dict.fromkeys((base, table.parent)):
        for start in range(len(parts)):
            path = folder.joinpath(*parts[start:]) if not Path(*parts[start:]).is_absolute() else None
            if path is not None and path.is_file():
                return path
    text = f"{table}, {line}: {name} is not there; paths are looked up in {base}"
    raise FileError(text, f"{role} missing", base / name, f"{table.name}, {line}")
