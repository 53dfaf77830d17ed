"""What the predict programs read and where the results go, checked before anything runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nets.errors import UserError
from utils.data.band_choice import TrainedBands
from utils.data.extra_images import ExtraImages
from utils.data.raster import RasterInfo
from utils.data.raster_files import is_virtual
from utils.data.source import select_bands, source_info
from utils.files import make_folder
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
        bands: which of the image's bands these are, from 0 on; None takes all as they are.
    """

    info: RasterInfo
    folder: Path
    name: str
    bands: tuple[int, ...] | None = None

    @property
    def frame(self) -> dict:
        """Size and coordinates of the image, which are those of its results."""
        info = self.info
        size, place = {"height": info.height, "width": info.width}, {"crs": info.crs, "ground": info.ground}
        return {**size, **place, "transform": info.transform}

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
    source: str | Path, output: str | Path, bands: TrainedBands, extra_images: str | None = None
) -> Jobs:
    """List the images that `source` names and name their results.

    Args:
        source: see `find_sources`.
        output: folder of the results; it is made if everything is right.
        bands: what the network takes of an image.
        extra_images: where rasters lie whose bands follow the image's, as `ExtraImages` takes it.

    Raises:
        UserError: nothing to read, an output that would overwrite the input, or other bands.
    """
    output = Path(output)
    work = Jobs()
    paths = find_sources(source, work.notices)
    if any(not is_virtual(path) and path.parent.resolve() == output.resolve() for path in paths):
        raise UserError(
            f"--OUTPUT {output} is the folder of the input, whose files could be overwritten; "
            "give another folder"
        )
    extra = ExtraImages(extra_images)
    extra.check_single(len(paths))
    infos = {}
    for path, name in zip(paths, result_names(paths), strict=True):
        found = [place for place, _ in extra.of(path, [stem_and_ending(path)[0]])]
        try:
            infos[name] = source_info(path, found)
        except UserError as mistake:
            work.failures[path] = str(mistake)
    work.jobs = _choose(infos, output, bands)
    _note_orders(work, bands.names)
    _note_ground_control(work)
    if not work.jobs:
        work.raise_failures(output)
    make_folder(output, "--OUTPUT")
    return work


def _choose(infos: dict[str, RasterInfo], output: Path, bands: TrainedBands) -> list[Job]:
    """Return a job for each image, by the name of its results, with the bands that the network takes."""
    jobs, wrong = [], []
    for name, info in infos.items():
        try:
            order = bands.choose(info.band_names, str(info.path))
            jobs.append(Job(select_bands(info, order), output, name, order))
        except UserError as mistake:
            wrong.append(str(mistake))
    if wrong:
        more = f" (and {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    return jobs


def _note_orders(work: Jobs, names: Sequence[str | None]) -> None:
    chosen = [job for job in work.jobs if job.info.pieces and job.bands is not None]
    if chosen:
        first = chosen[0]
        places = ", ".join(
            f"{own or name} (band {band + 1})"
            for own, name, band in zip(first.info.band_names, names, first.bands, strict=True)
        )
        more = f" and of {len(chosen) - 1} more images" if len(chosen) > 1 else ""
        work.notices.append(f"bands of {first.info.path}{more} are taken in this order: {places}")


def _note_ground_control(work: Jobs) -> None:
    known = [job.info for job in work.jobs if job.info.ground is not None]
    if known:
        more = f" and {len(known) - 1} more images" if len(known) > 1 else ""
        work.notices.append(
            f"{known[0].path}{more}: ground control points and no transform; the maps carry the same points "
            "(gdalwarp makes a grid of them), polygons count pixels"
        )


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
