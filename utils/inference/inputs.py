"""What the predict programs read and where the results go, checked before anything runs."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nets.errors import UserError
from utils.data.raster import RasterInfo, raster_info
from utils.data.raster_files import RASTER_SUFFIXES

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Attributes:
        info: header of the image.
        folder: where the results go.
        name: first part of the names of the results.
    """

    info: RasterInfo
    folder: Path
    name: str

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
    failures: dict[Path, str] = field(default_factory=dict)
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


def collect_jobs(source: str | Path, output: str | Path, bands: int) -> Jobs:
    """List the images of a file or folder and name their results; sub-folders are not searched.

    Args:
        source: image, or folder of images.
        output: folder of the results; it is made if everything is right.
        bands: bands of an image that the network takes.

    Raises:
        UserError: nothing to read, an output that would overwrite the input, or another number of bands.
    """
    source, output = Path(source), Path(output)
    work = Jobs()
    paths = _images(source, work.notices)
    parent = source if source.is_dir() else source.parent
    if output.resolve() == parent.resolve():
        raise UserError(
            f"--OUTPUT {output} is the folder of the input, whose files could be overwritten; "
            "give another folder"
        )
    for path, name in zip(paths, result_names(paths), strict=True):
        try:
            work.jobs.append(Job(raster_info(path), output, name))
        except UserError as mistake:
            work.failures[path] = str(mistake)
    _check_bands([job.info for job in work.jobs], bands)
    if not work.jobs:
        work.raise_failures(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--OUTPUT {output} cannot be made ({error.strerror}); give another folder"
        ) from error
    return work


def _images(source: Path, notices: list[str]) -> list[Path]:
    """Return the images at `source` in alphabetical order and note what is skipped."""
    readable = ", ".join(RASTER_SUFFIXES)
    if not source.exists():
        raise UserError(f"--INPUT {source} does not exist; give an image or a folder of images ({readable})")
    if source.is_file():
        return [source]
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in RASTER_SUFFIXES]
    skipped = [path.name for path in files if path.suffix.lower() not in RASTER_SUFFIXES]
    if not images:
        raise UserError(
            f"--INPUT {source} holds no image; files ending in {readable} are read, "
            "sub-folders are not searched"
        )
    if skipped:
        more = f" and {len(skipped) - _NAMED_AT_MOST} more" if len(skipped) > _NAMED_AT_MOST else ""
        notices.append(f"skipped, not an image: {', '.join(skipped[:_NAMED_AT_MOST])}{more}")
    return images


def result_names(paths: list[Path]) -> list[str]:
    """Return a name for the results of each image, such that no result replaces another.

    It is the stem; images of the same stem keep their extension (`a_jpg`, `a_png`), and a number is added
    where a result would still have the name of another (the overlay of `a` and the map of `a_overlay`). Upper
    and lower case count as the same, as they do on Windows and macOS.
    """
    stems = Counter(path.stem.lower() for path in paths)
    taken: set[str] = set()
    names = []
    for path in paths:
        unique = stems[path.stem.lower()] == 1
        base = name = path.stem if unique else f"{path.stem}_{path.suffix[1:]}"
        number = 2
        while taken & _products(name):
            name = f"{base}-{number}"
            number += 1
        taken |= _products(name)
        names.append(name)
    return names


def _products(name: str) -> set[str]:
    return {f"{name}{ending}".lower() for ending in (".png", ".tif", "_overlay.png", "_scores.tif")}


def _check_bands(infos: list[RasterInfo], bands: int) -> None:
    wrong = [info for info in infos if info.bands != bands]
    if wrong:
        more = f" (and {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0].path}{more} has {wrong[0].bands} bands; the network was trained on {bands}; "
            "give images with the bands of the training data"
        )
