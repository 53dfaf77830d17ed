"""Strips: the rows of a scene that one of several processes predicts, and how they become one result.

Every process predicts all windows that reach its rows, so the windows across the border of two strips are
predicted by both: the sums are those of a single process, and nothing but finished rows passes between them.
The first process writes its strip into the scene's own rasters; the others write theirs into rasters of
temporary names in the folder `NAME.strips` beside them, which the first then copies and removes.
"""

from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from nets.errors import UserError
from utils.data.labels import Classes
from utils.data.raster_files import open_quietly
from utils.files import replacing
from utils.inference.inputs import Job
from utils.inference.results import ResultOptions, SceneResults, strips_folder
from utils.inference.row_writer import TILE


def divide(height: int, count: int) -> list[range]:
    """Return the rows of at most `count` strips of a scene; they meet where rows of tiles do."""
    borders = {round(height * index / count / TILE) * TILE for index in range(1, count)}
    edges = [0, *sorted(border for border in borders if 0 < border < height), height]
    return [range(top, bottom) for top, bottom in pairwise(edges)]


class StripResults(SceneResults):
    """The rasters, the rows of the overlay and the progress of a strip.

    The rasters have the size of the scene; what is not of the strip takes no room in them. When all rows are
    there they keep their temporary names.

    Args:
        job: the whole scene, and names of its results.
        classes: names and colours.
        options: what is written about the scene.
        settings: how the scene is cut, as plain values.
        rows: of the strip.
    """

    def __init__(
        self, job: Job, classes: Classes, options: ResultOptions, settings: dict, rows: range
    ) -> None:
        folder = strips_folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        part = replace(job, folder=folder, name=f"{rows.start}-{rows.stop}")
        plain = replace(options, format="tif", vector=None)
        super().__init__(part, classes, plain, settings, rows)

    @property
    def _look_file(self) -> Path:
        return self.job.product(".npz")

    @property
    def done(self) -> bool:
        """Whether all rows are there."""
        return self.progress.done and self._look_file.exists() and all(w.part.exists() for w in self.writers)

    def finish(self) -> None:
        """Bring everything to the disk and say that it is complete."""
        sizes = {writer.path.name: writer.checkpoint() for writer in self.writers}
        for writer in self.writers:
            writer.keep = True
            writer.discard()
        with replacing(self._look_file) as part, part.open("wb") as file:
            np.savez(file, **self.look.piece(self.part.start, len(self.part)))
        self.progress.done = True
        self._save(sizes)

    def give(self, whole: SceneResults) -> None:
        """Copy the rows that the whole scene still lacks.

        Raises:
            UserError: they are not there.
        """
        first = max(self.part.start, whole.writers[0].complete)
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(open_quietly(writer.part)) for writer in self.writers]
                with np.load(self._look_file) as look:
                    whole.look.add_piece(self.part.start, len(self.part), look)
                for top in range(first, self.part.stop, TILE):
                    self._copy(files, whole, top)
        except (OSError, RasterioError) as error:
            raise UserError(
                f"rows {self.part.start} to {self.part.stop} of {whole.job.name} are not in "
                f"{self.job.folder}; --OUTPUT must be one folder for all machines"
            ) from error

    def _copy(self, files: list[rasterio.DatasetReader], whole: SceneResults, top: int) -> None:
        count = min(TILE, self.part.stop - top)
        window = RasterioWindow(0, top, self.job.info.width, count)
        whole.add(top, 0, [file.read(window=window) for file in files])
        whole.advance(top + count)
