"""What the predict programs read and where the results go, checked before anything runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from nets.errors import UserError
from utils.data.raster import RasterInfo, raster_info
from utils.data.raster_files import is_virtual
from utils.inference.sources import find_sources, stem_and_ending

_ENDINGS = (
    *(".png", ".tif", ".gpkg", ".geojson", "_overlay.png"),
    *("_scores.tif", "_confidence.tif", "_entropy.tif"),
)


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Attributes:
        info: header of the image; of its bands only those that the network takes, in its order.
        folder: where the results go.
        name: first part of the names of the results.
        bands: where these bands are in the file, from 0 on; None takes all as they are.
    """

    info: RasterInfo
    folder: Path
    name: str
    bands: tuple[int, ...] | None = None

    @property
    def frame(self) -> dict:
        """Size and coordinates of the image, which are those of its results."""
        info = self.info
        return {"height": info.height, "width": info.width, "crs": info.crs, "transform": info.transform}

    def product(self, ending: str) -> Path:
        """Return the path of a result, e.g. for the ending `_overlay.png`."""
        return self.folder / f"{self.name}{ending}"


@dataclass
class Jobs:
    """All images of a run.

    Attributes:
        jobs: images to predict.
        failures: unreadable image -> reason.
        notices: lines worth printing before the run.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: dict[Path | str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @contextmanager
    def attempt(self, job: Job, tell: Callable[[str], object]) -> Iterator[None]:
        """Note a `UserError` in the block and go on with the next image."""
        try:
            yield
        except UserError as mistake:
            tell(f"failed: {mistake}")
            self.failures[job.info.path] = str(mistake)

    @property
    def done(self) -> int:
        """Images that did not fail."""
        return sum(job.info.path not in self.failures for job in self.jobs)

    def raise_failures(self, output: Path) -> None:
        """Raise one line naming all images that failed, if any did."""
        if not self.failures:
            return
        total = len(self.failures.keys() | {job.info.path for job in self.jobs})
        reasons = "; ".join(self.failures.values())
        if total == 1:
            raise UserError(reasons)
        rest = f"; the others are in {output}" if len(self.failures) < total else ""
        raise UserError(f"{len(self.failures)} of {total} images have no result: {reasons}{rest}")


def collect_jobs(
    source: str | Path, output: str | Path, bands: int, band_names: Sequence[str | None] = ()
) -> Jobs:
    """List the images that `source` names and name their results.

    Args:
        source: see `find_sources`.
        output: folder of the results; it is made if everything is right.
        bands: bands of an image that the network takes.
        band_names: the network's names of them; an image that has all these names is read in their order.

    Raises:
        UserError: nothing to read, an output that would overwrite the input, or another number of bands.
    """
    output = Path(output)
    work = Jobs()
    paths = find_sources(source, work.notices)
    if any(not is_virtual(path) and path.parent.resolve() == output.resolve() for path in paths):
        raise UserError(
            f"--OUTPUT {output} is the folder of the input, whose files could be overwritten; "
            "give another folder"
        )
    for path, name in zip(paths, result_names(paths), strict=True):
        try:
            work.jobs.append(_job(raster_info(path), output, name, band_names))
        except UserError as mistake:
            work.failures[path] = str(mistake)
    _check_bands(work.jobs, bands)
    _note_orders(work)
    if not work.jobs:
        work.raise_failures(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--OUTPUT {output} cannot be made ({error.strerror}); give another folder"
        ) from error
    return work


def _job(info: RasterInfo, output: Path, name: str, band_names: Sequence[str | None]) -> Job:
    order = band_order(info.band_names, band_names)
    if order is not None:
        chosen = tuple(info.band_names[band] for band in order)
        info = replace(info, bands=len(order), band_names=chosen)
    return Job(info, output, name, order)


def band_order(theirs: Sequence[str | None], ours: Sequence[str | None]) -> tuple[int, ...] | None:
    """Return where in an image the network's bands are, or None where they are taken as they come.

    They are looked for by name, and only where both sides name every band and no two alike.

    Args:
        theirs: the image's names of its bands.
        ours: the network's.
    """
    names = [(name or "").casefold() for name in theirs]
    wanted = [(name or "").casefold() for name in ours]
    alike = len(set(names)) < len(names) or len(set(wanted)) < len(wanted)
    if not wanted or "" in wanted or alike or not set(wanted) <= set(names):
        return None
    order = tuple(names.index(name) for name in wanted)
    return None if order == tuple(range(len(names))) else order


def _note_orders(work: Jobs) -> None:
    chosen = [job for job in work.jobs if job.bands is not None]
    if chosen:
        first = chosen[0]
        places = ", ".join(
            f"{name} (band {band + 1})" for name, band in zip(first.info.band_names, first.bands, strict=True)
        )
        more = f" and of {len(chosen) - 1} more images" if len(chosen) > 1 else ""
        work.notices.append(f"bands of {first.info.path}{more} are taken by their names: {places}")


def result_names(paths: list[Path | str]) -> list[str]:
    """Return a name for the results of each image, such that no result replaces another.

    It is the stem; images of the same stem keep their extension (`a_jpg`, `a_png`), and a number is added
    where a result would still have the name of another (the overlay of `a` and the map of `a_overlay`). Upper
    and lower case count as the same, as they do on Windows and macOS.
    """
    parts = [stem_and_ending(path) for path in paths]
    stems = Counter(stem.lower() for stem, _ in parts)
    taken: set[str] = set()
    names = []
    for stem, suffix in parts:
        base = name = stem if stems[stem.lower()] == 1 else f"{stem}_{suffix[1:]}"
        number = 2
        while taken & _products(name):
            name = f"{base}-{number}"
            number += 1
        taken |= _products(name)
        names.append(name)
    return names


def _products(name: str) -> set[str]:
    return {f"{name}{ending}".lower() for ending in _ENDINGS}


def _check_bands(jobs: list[Job], bands: int) -> None:
    wrong = [job.info for job in jobs if job.info.bands != bands]
    if wrong:
        more = f" (and {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0].path}{more} has {wrong[0].bands} bands; the network was trained on {bands}; "
            "give images with the bands of the training data"
        )
