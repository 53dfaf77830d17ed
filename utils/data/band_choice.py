"""Which bands of an image a network takes: `--BAND_INDEX` in training, then what the checkpoint says."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nets.errors import UserError
from utils.data.band_index import parse_band_index

Names = Sequence[str | None]
# Names of an image's bands, and the words that name it -> which bands to take (None: all as they are).
Choice = Callable[[Names, str], tuple[int, ...] | None]
MOST_NAMED = 20


def named_bands(words: Sequence[str], names: Names, where: str) -> tuple[int, ...]:
    """Return which bands (from 0 on) the words of `--BAND_INDEX` name.

    Args:
        words: Numbers from 1 on, or names, whatever their case.
        names: Names of the bands there are.
        where: The image, for messages.

    Raises:
        UserError: A word names no band, several of one name, or one that another word names too.
    """
    known = [(name or "").casefold() for name in names]
    order: list[int] = []
    for word in words:
        if word.isdecimal():
            found = [int(word) - 1] if int(word) <= len(known) else []
        else:
            found = [index for index, name in enumerate(known) if name == word.casefold()]
        if len(found) > 1:
            raise UserError(f"--BAND_INDEX {word}: {where} has {len(found)} bands of this name; give numbers")
        if not found:
            raise UserError(
                f"--BAND_INDEX {word}: {where} has no such band; there are {_listed(names)} "
                f"(1 to {len(known)})"
            )
        if found[0] in order:
            raise UserError(f"--BAND_INDEX {','.join(words)}: {word} is band {found[0] + 1} a second time")
        order += found
    return tuple(order)


def flag_choice(text: str | None) -> Choice:
    """Return the choice of `--BAND_INDEX`."""
    words = parse_band_index(text) if text else ()
    return lambda names, where: named_bands(words, names, where) if words else None


@dataclass(frozen=True)
class TrainedBands:
    """The bands that a network was trained on.

    Attributes:
        count: How many it takes.
        names: Their names; empty where the checkpoint has none.
        index: Which bands of the training images they are, from 0 on; empty: all as they are.
        available: Names of all bands of the training images.
        files: Bands of the image itself and of each further raster behind it.
    """

    count: int
    names: tuple[str | None, ...] = ()
    index: tuple[int, ...] = ()
    available: tuple[str | None, ...] = ()
    files: tuple[int, ...] = ()

    @classmethod
    def of(cls, network: object) -> "TrainedBands":
        """Return the bands of a loaded network, also of one whose checkpoint says little about them."""
        return cls.of_checkpoint(network.about.get("bands") or {}, network.bands)

    @classmethod
    def of_checkpoint(cls, about: Mapping[str, Sequence], count: int | None = None) -> "TrainedBands":
        """Return what a checkpoint says of the bands; `count` counts where it is known otherwise."""
        return cls(
            len(about["names"]) if count is None else count,
            tuple(about.get("names") or ()),
            tuple(number - 1 for number in about.get("index") or ()),
            tuple(about.get("available") or ()),
            tuple(about.get("files") or ()),
        )

    @property
    def extra_files(self) -> int:
        """Rasters that `--EXTRA_IMAGES` must add to an image."""
        return len(self.files[1:])

    def choose(self, names: Names, where: str) -> tuple[int, ...] | None:
        """Return which bands (from 0 on) of an image the network takes; a `Choice`.

        They are looked for by name, where both sides name every band and no two alike; else, in an image of
        as many bands as the training images had, they stand where they stood there.

        Raises:
            UserError: The image has other bands.
        """
        own = self.files[0] if self.files else len(names)
        known = self.available if len(self.available) == len(names) else ()
        # A raster behind the image mostly has no name for its band; its place says what it is.
        filled = [name or (known[i] if known and i >= own else None) for i, name in enumerate(names)]
        order = band_order(filled, [None if is_placeholder(name) else name for name in self.names])
        if order is not None and len(order) == self.count:
            return order
        if self.index and len(names) == len(self.available):
            return self.index
        selected = bool(self.index) and len(self.available) != self.count
        if len(names) == self.count and not selected:
            return None
        raise UserError(self._mismatch(len(names), where, selected))

    def _mismatch(self, given: int, where: str, selected: bool) -> str:
        listed = f" ({_listed(self.names)})" if any(self.names) else ""
        if self.extra_files and given == self.files[0]:
            last = _listed(self.available[given:])
            return (
                f"{where} has {given} bands; the network was trained with further ones from --EXTRA_IMAGES "
                f"({last}): give --EXTRA_IMAGES with the folder, or file, that holds them"
            )
        if selected:
            numbers = ",".join(str(band + 1) for band in self.index)
            return (
                f"{where} has {given} bands; the network was trained on the bands {numbers}{listed} of "
                f"{len(self.available)}: give images with all {len(self.available)}, or with bands of these "
                "names"
            )
        return (
            f"{where} has {given} bands; the network was trained on {self.count}{listed}; "
            "give images with the bands of the training data"
        )

    def describe(self) -> str:
        """Return the bands in words."""
        listed = f"{self.count} ({_listed(self.names)})" if any(self.names) else str(self.count)
        if self.index != tuple(range(len(self.available))):
            listed += f", bands {','.join(str(band + 1) for band in self.index)} of {len(self.available)}"
        if self.extra_files:
            counts = " + ".join(map(str, self.files))
            listed += f"; image and --EXTRA_IMAGES have {counts} bands"
        return listed


def placeholder(place: int) -> str:
    """Return what a band without a name is called, by its place from 0 on."""
    return f"band_{place + 1}"


def is_placeholder(name: str | None) -> bool:
    """Tell whether a name says nothing about a band."""
    return name is None or re.fullmatch(r"band_\d+", name) is not None


def band_order(theirs: Names, ours: Names) -> tuple[int, ...] | None:
    """Return where in an image the network's bands are, None where that cannot be told by their names.

    Args:
        theirs: the image's names of its bands; every one has a name and no two are alike, or None.
        ours: the network's.
    """
    names = [(name or "").casefold() for name in theirs]
    wanted = [(name or "").casefold() for name in ours]
    alike = len(set(names)) < len(names) or len(set(wanted)) < len(wanted)
    if not wanted or "" in wanted or alike or not set(wanted) <= set(names):
        return None
    return tuple(names.index(name) for name in wanted)


def _listed(names: Names) -> str:
    shown = [str(name or f"band {place}") for place, name in enumerate(names[:MOST_NAMED], start=1)]
    return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > MOST_NAMED else "")
