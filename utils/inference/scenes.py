"""One scene of any size: read, predict and write row by row, in memory that its height does not change."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from utils.data.labels import Classes
from utils.data.raster import RasterInfo, Window, read_image
from utils.inference.class_map import ClassTotals, class_dtype, pixel_area, to_class_map
from utils.inference.inputs import Job
from utils.inference.quicklook import QuickLook
from utils.inference.windows import PIECE_BYTES, WindowGrid, predict_rows
from utils.inference.writing import TILE, ClassMapWriter, RowWriter, ScoresWriter, write_png

GDAL_CACHE_MB = 64  # GDAL's own default is a twentieth of the machine's memory


@dataclass(frozen=True)
class WindowOptions:
    """How a scene is cut.

    Attributes:
        window: (height, width) of a window, pixels.
        overlap: part of a window that its neighbour shares.
        batch_size: windows per call of the network.
    """

    window: tuple[int, int]
    overlap: float
    batch_size: int

    def grid(self, info: RasterInfo) -> WindowGrid:
        """Return the windows of a scene."""
        return WindowGrid.cover(info.height, info.width, self.window, self.overlap)


def predict_scene(
    job: Job,
    predict: Callable[[Tensor], Tensor],
    classes: Classes,
    options: WindowOptions,
    *,
    scores: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ClassTotals:
    """Predict a scene window by window; write its map, small overlay and scores.

    Args:
        job: scene, and names of the results.
        predict: images (B, C, h, w) -> probabilities (B, K, h, w).
        classes: names and colours.
        options: how the scene is cut.
        scores: write the probabilities too.
        progress: called with the number of windows just done.

    Returns:
        The pixels and areas of its classes.

    Raises:
        UserError: the scene cannot be read; nothing of it is written then.
    """
    info = job.info
    look = QuickLook(info, classes)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        image, valid = read_image(info.path, window)
        look.add_image(window, image, valid)
        return image, valid

    with _results(job, classes, look, scores) as (add, totals):
        for top, probabilities in predict_rows(
            predict,
            read,
            info.height,
            info.width,
            classes.num_classes,
            options.window,
            options.overlap,
            options.batch_size,
            progress=progress,
        ):
            add(top, probabilities)
    return totals


@contextmanager
def _results(
    job: Job, classes: Classes, look: QuickLook, scores: bool
) -> Iterator[tuple[Callable[[int, np.ndarray], None], ClassTotals]]:
    """Give a function that takes rows of probabilities, and the totals that it counts."""
    totals, area = ClassTotals(classes), pixel_area(job.info)
    map_writer = ClassMapWriter(job.product(".tif"), **job.frame, names=classes.names, colors=classes.colors)
    writers: list[RowWriter] = [map_writer]
    if scores:
        writers.append(ScoresWriter(job.product("_scores.tif"), **job.frame, names=classes.names))

    def add(top: int, probabilities: np.ndarray) -> None:
        class_map = to_class_map(probabilities)
        map_writer.write(top, class_map)
        for writer in writers[1:]:
            writer.write(top, probabilities)
        look.add_classes(top, class_map)
        totals.add(class_map, area)

    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        yield add, totals
        write_png(job.product("_overlay.png"), look.draw())


def memory_estimate(info: RasterInfo, classes: Classes, options: WindowOptions, scores: bool) -> int:
    """Return the bytes that a scene takes besides the network's own feature maps."""
    grid = options.grid(info)
    num_classes, pixel = classes.num_classes, np.dtype(info.dtype).itemsize
    row = info.width
    blended = 4 * num_classes * grid.height * row
    strip = 2 * (info.bands * pixel + 1) * grid.height * row  # the rows in use, and those just read
    batch = 4 * options.batch_size * grid.height * grid.width * (2 * info.bands + 3 * num_classes)
    waiting = TILE * row * (class_dtype(num_classes).itemsize + (4 * num_classes if scores else 0))
    pieces = min(3 * PIECE_BYTES, 3 * blended)
    cache = min(GDAL_CACHE_MB * 2**20, info.height * row * info.bands * pixel)
    return blended + strip + batch + waiting + pieces + cache + QuickLook(info, classes).nbytes
