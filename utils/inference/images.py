"""One image in memory: read, predict in one piece, write map, overlay and scores."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nets.errors import UserError
from utils.data.labels import Classes
from utils.data.raster import RasterInfo, Window
from utils.data.raster_reader import ImageReader
from utils.data.source import source_of
from utils.inference.class_map import ClassTotals, pixel_area, to_class_map
from utils.inference.inputs import Job
from utils.inference.memory import is_out_of_memory
from utils.inference.quicklook import image_overlay
from utils.inference.scores import Scores
from utils.inference.whole import predict_whole
from utils.inference.writing import ScoresWriter, map_writer, write_class_png, write_png


def read_job(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole image (C, H, W), with the network's bands in its order, and `valid` (H, W)."""
    with ImageReader(source_of(job.info)) as reader:
        return reader.read(Window(0, 0, job.info.height, job.info.width))


def predict_image(
    job: Job,
    image: np.ndarray,
    valid: np.ndarray,
    predict: Callable[[Tensor], Tensor],
    classes: Classes,
    scores: Sequence[Scores] = (),
) -> ClassTotals:
    """Predict an image and write its map, overlay and scores.

    Args:
        job: image, and names of the results.
        image: its pixels (C, H, W), of any dtype.
        valid: (H, W), False where there is no data.
        predict: images (B, C, h, w) -> probabilities (B, K, h, w), of any size.
        classes: names and colours.
        scores: what is written beside the map.

    Returns:
        The pixels and areas of its classes.

    Raises:
        UserError: the image does not fit in memory.
    """
    info = job.info
    try:
        probabilities = torch.from_numpy(predict_whole(predict, image, valid, classes.num_classes))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{info.path} ({info.height} x {info.width} pixels) does not fit in memory in one piece; "
            "use predict_large.py"
        ) from error
    class_map = to_class_map(probabilities, valid, classes.num_classes, classes.task)
    for one in scores:
        path = job.product(one.ending)
        with ScoresWriter(path, scores=one, names=classes.names, **job.frame) as writer:
            writer.write(0, one.encode(probabilities, valid))
    write_png(job.product("_overlay.png"), image_overlay(info, image, valid, class_map, classes))
    if is_georeferenced(info) or classes.multilabel:
        with map_writer(job.product(".tif"), classes, **job.frame) as writer:
            writer.write(0, class_map)
    else:
        write_class_png(job.product(".png"), class_map, classes.colors)
    totals = ClassTotals(classes)
    totals.add(class_map, pixel_area(info))
    return totals


def is_georeferenced(info: RasterInfo) -> bool:
    """Whether the map should carry coordinates, which only a GeoTIFF can."""
    return info.crs is not None or info.transform is not None or info.ground is not None
