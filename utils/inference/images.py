"""One image in memory: read, predict in one piece, write map, overlay and scores."""

import torch
from torch import nn

from nets.errors import UserError
from utils.data.labels import Classes
from utils.data.raster import RasterInfo, read_image
from utils.inference.class_map import ClassTotals, pixel_area, to_class_map
from utils.inference.inputs import Job
from utils.inference.quicklook import image_overlay
from utils.inference.whole import predict_whole
from utils.inference.writing import ClassMapWriter, ScoresWriter, write_class_png, write_png


def predict_image(
    job: Job, network: nn.Module, device: torch.device, classes: Classes, *, scores: bool = False
) -> ClassTotals:
    """Predict an image and write its map, overlay and scores.

    Args:
        job: image, and names of the results.
        network: in eval mode, on `device`.
        device: where the network is.
        classes: names and colours.
        scores: write the probabilities too.

    Returns:
        The pixels and areas of its classes.

    Raises:
        UserError: the image cannot be read or does not fit in memory.
    """
    info = job.info
    image, valid = read_image(info.path)
    try:
        probabilities = predict_whole(network, image, valid, device)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"{info.path} ({info.height} x {info.width} pixels) does not fit in the memory of the GPU in one "
            "piece; use predict_large.py"
        ) from error
    class_map = to_class_map(probabilities)
    if scores:
        with ScoresWriter(job.product("_scores.tif"), **job.frame, names=classes.names) as writer:
            writer.write(0, probabilities)
    write_png(job.product("_overlay.png"), image_overlay(info, image, valid, class_map, classes))
    if is_georeferenced(info):
        with ClassMapWriter(
            job.product(".tif"), **job.frame, names=classes.names, colors=classes.colors
        ) as writer:
            writer.write(0, class_map)
    else:
        write_class_png(job.product(".png"), class_map, classes.colors)
    totals = ClassTotals(classes)
    totals.add(class_map, pixel_area(info))
    return totals


def is_georeferenced(info: RasterInfo) -> bool:
    """Whether the map should carry coordinates, which only a GeoTIFF can."""
    return info.crs is not None or info.transform is not None
