"""All that is written about one scene, kept in step, so that an interrupted one can be gone on with."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow
from tqdm import tqdm

from utils.data.labels import Classes
from utils.data.raster import RasterInfo, Window
from utils.data.raster_files import open_quietly
from utils.data.raster_reader import ImageReader
from utils.inference import resume
from utils.inference.class_map import ClassTotals, as_map, class_dtype, pixel_area
from utils.inference.images import is_georeferenced
from utils.inference.inputs import Job, Jobs
from utils.inference.quicklook import QuickLook
from utils.inference.resume import Progress, StateFile
from utils.inference.row_writer import TILE, RowWriter
from utils.inference.scores import Scores
from utils.inference.writing import ScoresWriter, map_writer, write_png

_MANY = 2e8  # pixel values of all rasters: their overviews or polygons take half a minute or more


@dataclass(frozen=True)
class ResultOptions:
    """What is written about a scene.

    Attributes:
        scores: rasters beside the class map.
        format: "tif", "cog" or "png".
        vector: ending of the file of polygons, "gpkg" or "geojson"; None writes none.
        resume: go on where an earlier run stopped.
        settings: further plain values that decide the result, as the network.
    """

    scores: tuple[Scores, ...] = ()
    format: str = "tif"
    vector: str | None = None
    resume: bool = False
    settings: dict = field(default_factory=dict)

    def buffer_bytes(self, info: RasterInfo, classes: Classes, step: int) -> int:
        """Return the memory of the rows that wait to be written, `step` rows of the scene at a time."""
        rows = min(info.height, step + TILE)
        values = sum(
            len(scores.bands(classes.names)) * np.dtype(scores.dtype).itemsize for scores in self.scores
        )
        planes = classes.num_classes if classes.multilabel else 1
        return rows * info.width * (values + planes * class_dtype(classes.num_classes).itemsize)


class SceneResults:
    """The rasters, the overlay, the totals and the progress of one scene.

    Args:
        job: scene, and names of the results.
        classes: names and colours.
        options: what is written.
        settings: how the scene is cut, as plain values.
        part: the rows of the scene that they are about, default: all; from one row of tiles to another.
    """

    def __init__(
        self, job: Job, classes: Classes, options: ResultOptions, settings: dict, part: range | None = None
    ) -> None:
        self.job, self.classes, self.options = job, classes, options
        self.part = range(job.info.height) if part is None else part
        self.num_classes, self.scores = classes.num_classes, options.scores
        self.look = QuickLook(job.info, classes)
        self.totals, self.area = ClassTotals(classes), pixel_area(job.info)
        words = [[scores.kind, scores.dtype] for scores in options.scores]
        kinds = {"scores": words, "format": options.format, "vector": options.vector}
        scene = resume.scene_settings(job.info)
        self.state = StateFile(
            job.product(".resume.json"), {**options.settings, **settings, **kinds, **scene}
        )
        self.progress = self.state.load() if options.resume else Progress()
        self.progress.rows = max(self.progress.rows, self.part.start)
        if self.progress.totals:
            self._restore_totals()
        self.saved_at = time.monotonic()
        self.writers = self._writers()

    @property
    def done(self) -> bool:
        """Whether an earlier part of this run has finished the scene, and the result is still there."""
        first = self.writers[0]
        return self.progress.done and (first.png or first.path).exists()

    @property
    def rows(self) -> int:
        """The first row that is still to be predicted."""
        return self.progress.rows

    def _writers(self) -> list[RowWriter]:
        plain = self.options.format == "png" and not is_georeferenced(self.job.info)
        more = {**self.job.frame, "cog": self.options.format == "cog"}
        png = self.job.product(".png") if plain and not self.classes.multilabel else None
        path, names = self.job.product(".tif"), self.classes.names
        writers: list[RowWriter] = [map_writer(path, self.classes, png=png, flushed=self._flushed, **more)]
        for scores in self.options.scores:
            writers.append(ScoresWriter(self.job.product(scores.ending), scores=scores, names=names, **more))
        return writers

    def start(self, reader: ImageReader) -> None:
        """Open the rasters, new or where they were left; `reader` fills in the overlay of what is there."""
        if self.rows > self.part.start:
            try:
                self._go_on(reader)
                return
            except (OSError, KeyError, RasterioError):  # they were moved or damaged since
                for writer in self.writers:
                    writer.discard()
        self.totals, self.progress = ClassTotals(self.classes), Progress(self.part.start)
        self.writers = self._writers()
        self.state.remove()
        for writer in self.writers:
            writer.start(self.part.start)

    def _go_on(self, reader: ImageReader) -> None:
        if self.rows < self.part.stop:
            for writer in self.writers:
                writer.start(self.rows, self.progress.sizes[writer.path.name])
        first = self.writers[0]
        path = first.part if first.part.exists() else first.png or first.path
        with open_quietly(path) as classes:
            for top in range(self.part.start, self.rows, TILE):
                count = min(TILE, self.rows - top)
                window = Window(top, 0, count, self.job.info.width)
                self.look.add_image(window, *reader.read(window))
                part = RasterioWindow(0, top, self.job.info.width, count)
                self.look.add_classes(top, as_map(classes.read(window=part), self.classes))

    def add(self, top: int, left: int, values: list[np.ndarray | None]) -> None:
        """Place a block (bands, h, w) of each raster; None leaves it without data."""
        for writer, block in zip(self.writers, values, strict=True):
            if block is not None:
                writer.put(top, left, block)

    def advance(self, bottom: int) -> None:
        """Write the rows above `bottom`, all of which are placed, and note how far it is now and then."""
        for writer in self.writers:
            writer.advance(bottom)
        due = time.monotonic() - self.saved_at >= resume.SECONDS
        if due and self.rows < self.writers[0].written < self.part.stop:
            self._save({writer.path.name: writer.checkpoint() for writer in self.writers})

    def _flushed(self, top: int, rows: np.ndarray) -> None:
        class_map = as_map(rows, self.classes)
        self.look.add_classes(top, class_map)
        self.totals.add(class_map, self.area)

    def _save(self, sizes: dict[str, int]) -> None:
        totals = [*self.totals.pixels.tolist(), self.totals.no_data]
        self.progress = Progress(self.writers[0].written, sizes, self.progress.done, totals)
        self.state.save(self.progress)
        self.saved_at = time.monotonic()

    def _restore_totals(self) -> None:
        *pixels, no_data = self.progress.totals
        self.totals.set(pixels, no_data, self.area)

    def finish(self) -> None:
        """Give the results their names, and write what is made of the whole class map."""
        if self.rows < self.job.info.height:
            for writer in self.writers:
                writer.close()
            self._save({})
        self._say_what_is_left()
        if self.options.vector and self.writers[0].part.exists():
            from utils.inference.polygons import write_polygons  # GEOS and a second GDAL: only if asked for

            target = self.job.product(f".{self.options.vector}")
            write_polygons(self.writers[0].part, target, self.classes, self.job.info)
        for writer in self.writers:
            writer.finish()
        write_png(self.job.product("_overlay.png"), self.look.draw())
        self.progress.done = True
        self.state.save(self.progress)
        forget_strips(self.job)

    def _say_what_is_left(self) -> None:
        """Say what goes on behind a full progress bar, where that takes long."""
        left = ["polygons"] if self.options.vector else []
        left += ["overviews"] if self.options.format == "cog" else []
        bands = sum(writer.profile["count"] for writer in self.writers)
        if left and bands * self.job.info.height * self.job.info.width >= _MANY:
            tqdm.write(f"{self.job.name}: all windows are done; now the {' and '.join(left)} are made")

    def abandon(self, keep: bool) -> None:
        """Close what is open; remove it unless it is to be gone on with."""
        keep = keep and self.rows > self.part.start
        for writer in self.writers:
            writer.keep = keep
            writer.discard()
        if not keep:
            self.state.remove()


def strips_folder(job: Job) -> Path:
    """Return where the strips of a scene stand that several processes predict."""
    return job.product(".strips")


def forget_strips(job: Job) -> None:
    """Remove the strips of a scene, if there are some."""
    shutil.rmtree(strips_folder(job), ignore_errors=True)


def forget(work: Jobs) -> None:
    """Remove the notes on scenes of a run that has ended, unless some of them can still be gone on with."""
    notes = [job.product(".resume.json") for job in work.jobs]
    failed = [job.product(".resume.json") for job in work.jobs if job.info.path in work.failures]
    if not any(note.exists() for note in failed):
        for note in notes:
            note.unlink(missing_ok=True)


@contextmanager
def hint_at_resume(work: Jobs) -> Iterator[None]:
    """Say after Ctrl-C in the block how to go on, if something was begun."""
    try:
        yield
    except KeyboardInterrupt:
        if any(job.product(".resume.json").exists() for job in work.jobs):
            print("stopped; the same command with --RESUME goes on from here")
        raise
