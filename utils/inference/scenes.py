"""One scene of any size: read, predict and write row by row, in memory that its height does not change.

Three kinds of threads share the work: some read the rows that come next, one runs the network and blends, one
compresses and writes. What passes between them is bounded.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from nets.errors import UserError
from utils.data.labels import Classes
from utils.data.raster import RasterInfo, Window
from utils.data.raster_files import is_virtual
from utils.data.raster_reader import ImageReader
from utils.data.source import source_of
from utils.inference.ahead import Behind
from utils.inference.class_map import ClassTotals, to_class_map
from utils.inference.inputs import Job
from utils.inference.quicklook import QuickLook
from utils.inference.results import ResultOptions, SceneResults
from utils.inference.resume import identity
from utils.inference.scores import Scores
from utils.inference.windows import Block, WindowGrid, predict_blocks

GDAL_CACHE_MB = 16  # GDAL's own default is a twentieth of the machine's memory


@dataclass(frozen=True)
class WindowOptions:
    """How a scene is cut.

    Attributes:
        window: (height, width) of a window, pixels.
        overlap: part of a window that its neighbour shares.
        batch_size: windows per call of the network.
        blend: a key of `blending.PROFILES`.
        least: scenes smaller than this are continued by reflection, (height, width).
    """

    window: tuple[int, int]
    overlap: float
    batch_size: int
    blend: str = "gaussian"
    least: tuple[int, int] = (0, 0)

    def grid(self, info: RasterInfo) -> WindowGrid:
        """Return the windows of a scene."""
        return WindowGrid.cover(info.height, info.width, self.window, self.overlap)

    def settings(self) -> dict:
        """Return what decides the result, as plain values."""
        values = asdict(self)
        del values["batch_size"]
        return values


def plan(
    options: argparse.Namespace, crop: tuple[int, int], batch_size: int, task: str = "multiclass"
) -> tuple[WindowOptions, ResultOptions]:
    """Return what the flags of predict_large.py ask for.

    Args:
        options: the flags.
        crop: (height, width) of the training crop: the default window, and the least that is predicted.
        batch_size: windows at a time in each process.
        task: of the network.
    """
    window = (options.WINDOW, options.WINDOW) if options.WINDOW else crop
    least = (min(window[0], crop[0]), min(window[1], crop[1]))
    weights = Path(options.WEIGHTS)
    settings = {"WEIGHTS": identity(weights) if weights.is_file() else [str(weights)], "TTA": options.TTA}
    return (
        WindowOptions(window, options.OVERLAP, batch_size, options.BLEND, least),
        ResultOptions(
            scores=tuple(Scores(*words, task) for words in options.SCORES or ()),
            format=options.FORMAT,
            vector=options.VECTOR,
            resume=options.RESUME,
            settings=settings,
        ),
    )


def predict_scene(
    job: Job,
    predict: Callable[[Tensor], Tensor],
    classes: Classes,
    options: WindowOptions,
    results: ResultOptions,
    *,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> ClassTotals:
    """Predict a scene window by window; write its map, small overlay and what else is asked for.

    Args:
        job: scene, and names of the results.
        predict: images (B, C, h, w) -> probabilities (B, K, h, w).
        classes: names and colours.
        options: how the scene is cut.
        results: what is written; with `resume` it goes on where an earlier run stopped.
        threads: threads that read; 0 reads in turn with the network.
        progress: called with the number of windows just done.

    Returns:
        The pixels and areas of its classes.

    Raises:
        UserError: the scene cannot be read; nothing of it is left then.
    """
    info, grid = job.info, options.grid(job.info)
    output = SceneResults(job, classes, results, options.settings())
    if output.done:
        if progress:
            progress(len(grid))
        return output.totals
    try:
        with ImageReader(source_of(info), threads) as reader:
            output.start(reader)
            predict_rest(reader, predict, options, output, threads=threads, progress=progress)
        output.finish()
    except BaseException as error:
        # A damaged file stays damaged; a connection that broke, or whoever pressed Ctrl-C, may come back.
        output.abandon(keep=not isinstance(error, UserError) or is_virtual(info.path))
        raise
    return output.totals


def predict_rest(
    reader: ImageReader,
    predict: Callable[[Tensor], Tensor],
    options: WindowOptions,
    output: SceneResults,
    *,
    stop: int | None = None,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Predict the rows that the results lack, those above `stop`; for the rest see `predict_scene`."""
    grid = options.grid(output.job.info)
    stop = output.part.stop if stop is None else stop
    missing = grid.rows(output.rows, stop)
    if progress and output.rows > output.part.start:
        progress((len(grid.rows(output.part.start, stop)) - len(missing)) * len(grid.lefts))
    if not missing:
        return

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        image, valid = reader.read(window)
        output.look.add_image(window, image, valid)
        return image, valid

    width = output.job.info.width
    with Behind() as writing:
        for block in predict_blocks(
            predict,
            read,
            (output.job.info.height, width),
            grid,
            options.batch_size,
            blend=options.blend,
            least=options.least,
            start=output.rows,
            stop=stop,
            threads=threads,
            progress=progress,
        ):
            writing.do(partial(output.add, *_encode(block, output)))
            if block.left + block.valid.shape[1] == width:
                writing.do(partial(output.advance, block.top + len(block.valid)))
            del block  # it holds the probabilities of its whole batch, and the next one is predicted now


def _encode(block: Block, output: SceneResults) -> tuple[int, int, list[np.ndarray | None]]:
    """Return place and values of a block for each result, copied: the next windows overwrite the block."""
    found = to_class_map(block.probabilities, block.valid, output.num_classes, output.classes.task)
    values: list[np.ndarray | None] = [found.reshape(-1, *block.valid.shape)]
    for scores in output.scores:
        some = block.probabilities is not None
        values.append(scores.encode(block.probabilities, block.valid) if some else None)
    return block.top, block.left, values


def memory_estimate(
    info: RasterInfo, classes: Classes, windows: WindowOptions, results: ResultOptions
) -> int:
    """Return the bytes that a scene takes besides the network's own feature maps."""
    grid = windows.grid(info)
    num_classes, pixel, row = classes.num_classes, np.dtype(info.dtype).itemsize, info.width
    steps = [b - a for a, b in zip(grid.tops, grid.tops[1:], strict=False)] or [grid.height]
    waiting = 4 * num_classes * (grid.height - min(steps)) * row
    strips = (info.bands * pixel + 1) * (grid.height + 2 * max(steps)) * row  # in use, read, being read
    shape = [max(sides) for sides in zip(grid.size, windows.least, strict=True)]
    batch = 4 * windows.batch_size * shape[0] * shape[1] * (2 * info.bands + 2 * num_classes)
    cache = min(GDAL_CACHE_MB * 2**20, info.height * row * info.bands * pixel)
    written = results.buffer_bytes(info, classes, max(steps))
    return waiting + strips + batch + written + cache + QuickLook(info, classes).nbytes
