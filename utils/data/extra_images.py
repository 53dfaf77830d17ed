"""Where the ancillary rasters of `--EXTRA_IMAGES` lie: one of the same name for every image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nets.errors import UserError
from utils.data.layouts.base import RasterFolder
from utils.data.raster_files import RASTER_SUFFIXES


class Extra(NamedTuple):
    """A raster whose bands follow those of an image, and the name of the place where it was found."""

    path: Path
    title: str


class ExtraImages:
    """Finds the rasters that belong to an image.

    Args:
        given: `--EXTRA_IMAGES`: folders, or files for a single image, separated by commas; None is none.
        root: Folder of the data set, in which they are looked for first.

    Raises:
        UserError: One of them does not exist, or is named twice.
    """

    def __init__(self, given: str | None, root: Path | None = None) -> None:
        words = [word.strip() for word in given.split(",")] if given is not None else []
        self.places = [self._place(word, root) for word in words]
        if len(set(self.places)) < len(self.places):
            raise UserError(f"--EXTRA_IMAGES {given} names a folder twice; take it out")
        self._folders = [RasterFolder(place) if place.is_dir() else None for place in self.places]

    @staticmethod
    def _place(word: str, root: Path | None) -> Path:
        inside = root / word if root is not None else Path(word)
        place = inside if inside.exists() else Path(word)
        if not word or not place.exists():
            where = f"{word or 'an empty name'} does not exist{f', nor in {root}' if root else ''}"
            raise UserError(f"--EXTRA_IMAGES: {where}; give a folder of rasters named like the images")
        return place

    def check_single(self, images: int) -> None:
        """Raise a UserError where a file is named and there are several images."""
        file = next((place for place in self.places if place.is_file()), None)
        if file is not None and images > 1:
            raise UserError(
                f"--EXTRA_IMAGES {file} is a file and there are {images} images; give the folder of files "
                "named like the images"
            )

    def of(self, image: Path | str, names: Sequence[str]) -> tuple[Extra, ...]:
        """Return the rasters of an image, one from each place.

        Args:
            image: The image, for messages.
            names: What the rasters may be called, without extension; the first that exists counts.

        Raises:
            UserError: There is none of these names, or there are several.
        """
        return tuple(
            Extra(place, place.stem) if folder is None else Extra(_find(folder, image, names), place.name)
            for place, folder in zip(self.places, self._folders, strict=True)
        )


def _find(folder: RasterFolder, image: Path | str, names: Sequence[str]) -> Path:
    found = next((paths for name in names if (paths := folder.candidates(name))), [])
    if not found:
        raise UserError(
            f"{folder.folder} (--EXTRA_IMAGES) has no raster {names[-1]} ({', '.join(RASTER_SUFFIXES)}) for "
            f"the image {image}; every image needs one of its name"
        )
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise UserError(f"{folder.folder} (--EXTRA_IMAGES) has {listed} for one image; remove one of them")
    return found[0]
