"""Folders of runs: their names, what is in them, and which one to go on with."""

import re
from pathlib import Path

from nets.errors import UserError
from nets.registry import nearest
from utils.checkpoint import read_checkpoint

ROOT = Path("pth_files")
# What --LR_FIND writes; the run that follows stands beside it.
RANGE_TEST = ("lr_find.csv", "lr_find.png")


def new_run(given: str | None, default: str) -> Path:
    """Return the folder of a new run, which may not exist yet.

    Args:
        given: `--RUN_NAME`; a folder that holds a checkpoint is refused, one without is taken over.
        default: name to use, numbered where taken, when none is given.

    Raises:
        UserError: the name is taken, or no folder name.
    """
    if given is not None:
        folder = run_folder(given)
        if any(folder.glob("*.pth")):
            raise UserError(
                f"{folder} already holds a checkpoint; go on with --RESUME or choose another --RUN_NAME"
            )
        return folder
    numbers = range(1, 100_000)
    return next(
        folder
        for number in numbers
        if not _taken(folder := ROOT / (default if number == 1 else f"{default}-{number}"))
    )


def _taken(folder: Path) -> bool:
    """Return whether a folder belongs to a run; one that holds a range test alone waits for its own."""
    if not folder.is_dir():
        return folder.exists()
    names = {path.name for path in folder.iterdir()}
    return not names or not names <= set(RANGE_TEST)


def run_folder(name: str) -> Path:
    """Return the folder of the run that `--RUN_NAME` names.

    Raises:
        UserError: it is no folder name.
    """
    if not name.strip() or Path(name).name != name or name in (".", ".."):
        raise UserError(f"--RUN_NAME {name!r} is not a folder name; use letters, digits, - and _")
    return ROOT / name


def find_resume(resume: str, run_name: str | None) -> Path | None:
    """Return the checkpoint to go on from; None when the run named by `--RUN_NAME` has none yet.

    Args:
        resume: a run's name, a file, or "" for `run_name` or else the newest unfinished run.
        run_name: `--RUN_NAME`.

    Raises:
        UserError: nothing there to go on with.
    """
    if not resume and run_name is not None:
        last = ROOT / run_name / "last.pth"
        return last if last.is_file() else None
    if not resume:
        return _newest_unfinished()
    path = Path(resume)
    for candidate in (path, path / "last.pth", ROOT / resume / "last.pth"):
        if candidate.is_file():
            return candidate
    runs = [folder.name for folder in ROOT.glob("*") if folder.is_dir()]
    raise UserError(f"--RESUME {resume}: there is no such run or file{nearest(resume, runs)}")


def _newest_unfinished() -> Path:
    files = sorted(ROOT.glob("*/last.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        if not read_checkpoint(path).get("training", {}).get("finished", True):
            return path
    raise UserError(f"--RESUME: {ROOT} holds no unfinished run; name a run or leave --RESUME out")


def saved_epochs(folder: Path, model: str) -> list[Path]:
    """Return the weights files of single epochs or iterations, oldest first."""
    pattern = re.compile(re.escape(model) + r"-(?:epoch|iter)(\d+)-loss.*\.pth")
    found = {path: pattern.fullmatch(path.name) for path in folder.glob("*.pth")}
    return sorted((path for path in found if found[path]), key=lambda path: int(found[path].group(1)))


def remove_old(folder: Path, model: str, keep: int) -> None:
    """Keep the newest `keep` weights files of single epochs; 0 keeps all."""
    for path in saved_epochs(folder, model)[:-keep] if keep else []:
        path.unlink()
