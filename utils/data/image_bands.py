"""The bands of a data set's images: names, order, selection, and whether all images have the same."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from nets.errors import UserError
from utils.data.band_choice import Choice, flag_choice, placeholder
from utils.data.classes_file import ClassesFile
from utils.data.dividing import Part
from utils.data.extra_images import ExtraImages
from utils.data.layouts.base import Entry
from utils.data.raster import RasterInfo
from utils.data.source import select_bands, source_of


class SourceBands(NamedTuple):
    """The bands that images have before some of them are taken.

    Attributes:
        names: Of all bands, the image's and those of the rasters behind it.
        files: How many of them are in the image and in each raster.
        index: Which of them are taken, from 0 on.
    """

    names: tuple[str, ...]
    files: tuple[int, ...]
    index: tuple[int, ...]

    def to_dict(self) -> dict[str, list]:
        """Return what a checkpoint says of them: `index` counts from 1, as people do."""
        index = [band + 1 for band in self.index]
        return {"index": index, "available": list(self.names), "files": list(self.files)}


def add_extra(groups: dict[str, list[Entry]], extra: ExtraImages) -> dict[str, list[Entry]]:
    """Return the entries of each split with the ancillary rasters of their images."""
    if not extra.places:
        return groups
    extra.check_single(len({entry.image for entries in groups.values() for entry in entries}))

    def found(entry: Entry) -> Entry:
        stem, folder = entry.image.stem, entry.image.parent.name
        names = (entry.name, f"{folder}/{stem}", stem)
        return entry._replace(extra=extra.of(entry.image, names))

    return {split: [found(entry) for entry in entries] for split, entries in groups.items()}


def known_names(info: RasterInfo, file: ClassesFile | None, entry: Entry | None) -> tuple[str | None, ...]:
    """Return a name for every band, None where nothing names it.

    Args:
        info: Header of an image with all its bands; the names in its files come first.
        file: `classes.json`, which may list the bands of the image or of the whole stack.
        entry: Gives bands of ancillary rasters the name of their place; None leaves them without.
    """
    own = len(source_of(info)[0].places)
    listed: Sequence[str] = file.bands if file and file.bands else ()
    listed = listed if len(listed) in (own, info.bands) else ()
    names = [name or (listed[i] if i < len(listed) else None) for i, name in enumerate(info.band_names)]
    pieces = source_of(info)[1:] if entry is not None else ()
    for piece, extra in zip(pieces, entry.extra if entry else (), strict=True):
        for number, place in enumerate(piece.places, start=1):
            title = extra.title if len(piece.places) == 1 else f"{extra.title}_{number}"
            names[place] = names[place] or title
    return tuple(names)


def choose_bands(
    parts: dict[str, list[Part]], file: ClassesFile | None, choice: Choice | None, band_index: str | None
) -> tuple[dict[str, list[Part]], SourceBands]:
    """Return images with the bands that are taken, and what bands the first one has.

    Args:
        parts: The images per split, with all bands, all of one number.
        file: `classes.json`.
        choice: Of a checkpoint; None follows `band_index`.
        band_index: `--BAND_INDEX`.

    Raises:
        UserError: A choice that the images do not allow, or extra images of different numbers of bands.
    """
    choose, trained = choice or flag_choice(band_index), choice is not None
    sources, chosen = None, {}
    for split, group in parts.items():
        chosen[split] = []
        for part in group:
            info, entry = part.image, part.entry
            order = choose(known_names(info, file, None if trained else entry), str(info.path))
            names = known_names(info, file, entry)
            filled = tuple(name or placeholder(place) for place, name in enumerate(names))
            files = tuple(len(piece.places) for piece in source_of(info))
            if sources is None:
                sources = SourceBands(filled, files, tuple(range(info.bands)) if order is None else order)
            if files != sources.files:
                raise UserError(
                    f"{info.path} and its extra images have {files} bands, the first image has "
                    f"{sources.files}; all images of a data set have the same bands"
                )
            image = select_bands(replace(info, band_names=filled), order)
            chosen[split].append(part._replace(image=image))
    return chosen, sources


def check_number(parts: dict[str, list[Part]], bands: int | None) -> None:
    """Raise a UserError where `--BANDS` is given and the images, as they are taken, have another number."""
    first = next(part.image for group in parts.values() for part in group)
    if bands is not None and bands != first.bands:
        alpha = " besides its alpha band, which is read as a mask" if first.has_alpha else ""
        taken = ", after --BAND_INDEX and --EXTRA_IMAGES," if first.pieces else ""
        raise UserError(
            f"{bands} bands were asked for, {first.path}{taken} has {first.bands}{alpha}; "
            f"give --BANDS {first.bands} or leave it out"
        )
