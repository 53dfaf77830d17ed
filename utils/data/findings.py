"""What is wrong with a data set: one file's mistake as an exception, and findings that a person reads.

A reader raises a `FileError` where a file is at fault. Its loop over files hands it to a `Report`: training
stops at the first one, `tools/check_dataset.py` writes it down and goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from nets.errors import UserError

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
_MOST_FILES = 3

# Mistakes of single files: what they are, for a count of them, and what to do.
MISTAKES: dict[str, tuple[str, str]] = {
    "image missing": ("names without an image", "add the files or take the names out of the list"),
    "label missing": ("images without a label", "add the labels or take the names out of the list"),
    "several files": ("names that stand for several files", "remove one of them, or write the extension"),
    "bad list": ("lists that cannot be understood", "mend the line"),
    "unreadable image": ("images that cannot be read", "replace them, or take them out of the data set"),
    "unreadable label": ("labels that cannot be read", "replace them, or take them out of the data set"),
    "JPEG label": (
        "labels saved as JPEG, which changes the class numbers at every edge",
        "make them anew as PNG, TIFF or NPY; converting the JPEG does not mend them",
    ),
    "label bands": (
        "labels with a wrong number of bands",
        "save one band of class ids, or RGB of 8 bits; with --TASK multilabel one band for each class",
    ),
    "label numbers": ("labels with numbers that are not whole", "save class ids"),
    "label is a picture": (
        "labels with more values than any set of classes",
        "save class ids without smoothing and lossy compression",
    ),
    "label size": ("labels of another size than their image", "make label and image on one grid"),
    "label place": ("labels that lie beside their image on the map", "cut or warp both to one grid"),
    "label value": (
        "labels with values that are no class",
        "mend them, or say in --LABEL_MAP or classes.json what the values mean",
    ),
    "label kinds": ("labels of colours among labels of numbers", "save all labels in one way"),
    "label colours": (
        "labels whose colours are smoothed or compressed",
        "save them exactly, or say in --LABEL_MAP which colours are classes",
    ),
    "classes": ("label values that make no plausible classes", "mend the labels, or write classes.json"),
    "extra image": ("extra images that do not fit their image", "cut or warp both to one grid"),
    "bands": ("images with another number of bands", "give all images the same bands"),
    "nothing readable": ("data sets of which no image can be read with its label", "mend the first ones"),
    "nothing labelled": ("splits without a labelled pixel", "say in --LABEL_MAP what the values mean"),
    "not divisible": (
        "scenes of which no part can be held back",
        "label more places, or list a second scene",
    ),
}


class FileError(UserError):
    """A mistake in one file of a data set.

    Attributes:
        kind: One of `MISTAKES`.
        path: The file.
        detail: What is wrong with it, in few words.
    """

    # One argument must do: PyTorch builds what a worker process raised anew from its message.
    def __init__(self, message: str, kind: str = "", path: Path | str = "", detail: str = "") -> None:
        super().__init__(message)
        self.kind, self.path, self.detail = kind, str(path), detail


Report = Callable[[FileError], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


def stop(error: FileError) -> None:
    """Raise the first mistake, as training does."""
    raise error


@contextmanager
def told(report: Report) -> Iterator[None]:
    """Hand the mistake that ends the block to `report`, which raises it or writes it down."""
    try:
        yield
    except FileError as error:
        report(error)


def attempt(function: Callable[[Item], Result], item: Item) -> Result | FileError:
    """Return function(item), or the mistake that ended it: threads then go on with the other items."""
    try:
        return function(item)
    except FileError as error:
        return error


@contextmanager
def blamed(kind: str, path: Path | str) -> Iterator[None]:
    """Turn a UserError of the block into the mistake of one file, if it is not one already."""
    try:
        yield
    except FileError:
        raise
    except UserError as error:
        text = str(error)
        detail = text.partition("(")[2].rpartition(")")[0] or text.removeprefix(f"{path} ")
        raise FileError(text, kind, path, detail) from error


class Finding(NamedTuple):
    """One thing that a person should know about a data set.

    Attributes:
        severity: One of `SEVERITIES`; an error harms or stops training.
        kind: A short name that stays the same, for programs.
        what: What was found, with its count.
        todo: What to do about it.
        files: The files and a few words about each, which may be empty.
    """

    severity: str
    kind: str
    what: str
    todo: str = ""
    files: tuple[tuple[str, str], ...] = ()

    def text(self, root: Path | str | None = None) -> str:
        """Return the finding without its severity; files are shown relative to `root`."""
        shown = [_shown(path, detail, root) for path, detail in self.files[:_MOST_FILES]]
        more = len(self.files) - len(shown)
        listed = ", ".join(shown) + (f" and {more} more" if more else "")
        return f"{self.what}{': ' if listed else ''}{listed}{'; ' if self.todo else ''}{self.todo}"

    def line(self, root: Path | str | None = None) -> str:
        """Return the finding in one line."""
        return f"{self.severity}: {self.text(root)}"


class Collector:
    """A report that writes every mistake down once."""

    def __init__(self) -> None:
        self.errors: dict[tuple[str, str, str], FileError] = {}

    def __call__(self, error: FileError) -> None:
        """Write a mistake down; layouts that are tried one after the other may tell it twice."""
        self.errors.setdefault((error.kind, error.path, error.detail), error)

    def findings(self) -> list[Finding]:
        """Return one finding per kind of mistake."""
        kinds = dict.fromkeys(kind for kind, _, _ in self.errors)
        return [_gathered(kind, [e for e in self.errors.values() if e.kind == kind]) for kind in kinds]


def of_files(paths: Sequence[Path | str]) -> tuple[tuple[str, str], ...]:
    """Return files without further words, as a `Finding` wants them."""
    return tuple((str(path), "") for path in paths)


def _gathered(kind: str, errors: Sequence[FileError]) -> Finding:
    what, todo = MISTAKES[kind]
    files = tuple((error.path, error.detail) for error in errors)
    return Finding(ERROR, kind, f"{len(errors)} {what}", todo, files)


def _shown(path: str, detail: str, root: Path | str | None) -> str:
    if root is not None and Path(path).is_relative_to(root):
        path = Path(path).relative_to(root).as_posix()
    return f"{path} ({detail})" if detail else path
