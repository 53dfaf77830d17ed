"""What --INPUT names: a raster, a folder, a pattern, a list of paths, a VRT or a virtual path of GDAL."""

import glob
from pathlib import Path, PurePosixPath

from nets.errors import UserError
from utils.data.raster_files import RASTER_SUFFIXES, as_source, is_virtual

_NAMED_AT_MOST = 5
_READABLE = ", ".join(RASTER_SUFFIXES)


def find_sources(given: str | Path, notices: list[str]) -> list[Path | str]:
    """Return the images that `given` names and note what is skipped; sub-folders are not searched.

    Raises:
        UserError: nothing there.
    """
    source = as_source(given)
    if is_virtual(source):
        return [source]
    if source.is_dir():
        return _in_folder(source, notices)
    if source.is_file():
        return _in_list(source) if source.suffix.lower() == ".txt" else [source]
    if glob.has_magic(str(given)):
        return _in_pattern(str(given), notices)
    raise UserError(f"--INPUT {source} does not exist; give an image or a folder of images ({_READABLE})")


def _in_folder(folder: Path, notices: list[str]) -> list[Path | str]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = _images(files, notices)
    if not images:
        raise UserError(
            f"--INPUT {folder} holds no image; files ending in {_READABLE} are read, "
            "sub-folders are not searched"
        )
    return images


def _in_pattern(pattern: str, notices: list[str]) -> list[Path | str]:
    """Return the rasters that match; `**` searches sub-folders."""
    files = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    images = _images(files, notices, (*RASTER_SUFFIXES, ".vrt"))
    if not images:
        raise UserError(f"--INPUT {pattern} matches no image; files ending in {_READABLE} are read")
    return images


def _images(files: list[Path], notices: list[str], endings: tuple[str, ...] = RASTER_SUFFIXES) -> list:
    skipped = [path.name for path in files if path.suffix.lower() not in endings]
    if skipped and len(skipped) < len(files):
        more = f" and {len(skipped) - _NAMED_AT_MOST} more" if len(skipped) > _NAMED_AT_MOST else ""
        notices.append(f"skipped, not an image: {', '.join(skipped[:_NAMED_AT_MOST])}{more}")
    return [path for path in files if path.suffix.lower() in endings]


def _in_list(file: Path) -> list[Path | str]:
    """Return the paths of a text file, one per line, relative to its folder; # begins a remark."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--INPUT {file} cannot be read as UTF-8 text; give one path per line") from error
    sources = [as_source(line) for line in lines if line and not line.startswith("#")]
    if not sources:
        raise UserError(f"--INPUT {file} names no image; give one path per line")
    listed = [source if is_virtual(source) else file.parent / source for source in sources]
    twice = next((one for index, one in enumerate(listed) if one in listed[:index]), None)
    if twice is not None:
        raise UserError(f"--INPUT {file} names {twice} twice; take one of the lines out")
    return listed


def stem_and_ending(source: Path | str) -> tuple[str, str]:
    """Return the name of an image without folders, and its file ending with the point."""
    if not is_virtual(source):
        return source.stem, source.suffix
    # What follows "?" is a signature or a key; what follows "!" is a file in an archive.
    path = PurePosixPath(source.split("?")[0].replace("!", "/").rstrip("/"))
    return path.stem or "image", path.suffix
