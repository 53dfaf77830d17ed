"""Class maps that are on the disk already, scored without a network."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from nets.errors import UserError
from utils.data.band_labels import band_label_info, read_band_label
from utils.data.dataset import SegmentationDataset
from utils.data.labels import IGNORE, Classes
from utils.data.raster import label_info, raster_info, read_label
from utils.data.samples import Sample
from utils.evaluation.metrics import ConfusionMatrix, Metrics, compute_metrics

Each = Callable[[dict, torch.Tensor, torch.Tensor], object]
_ENDINGS = (".tif", ".png", ".npy")


def find_maps(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the class map of each image: its name, or the last part of it, as tif, png or npy.

    Raises:
        UserError: an image has no map or several, or two images would share one.
    """
    maps: dict[str, Path] = {}
    for name in names:
        stems = dict.fromkeys((name, name.rsplit("/", 1)[-1]))
        wanted = [[folder / f"{stem}{ending}" for ending in _ENDINGS] for stem in stems]
        found = next((there for some in wanted if (there := [path for path in some if path.is_file()])), [])
        if not found:
            raise UserError(
                f"--PREDICTIONS {folder} has no map of {name}; {wanted[0][0].name} or {wanted[0][1].name} is "
                "wanted, as the predict programs write them"
            )
        if len(found) > 1:  # of two runs into one folder: which is the later one cannot be told
            raise UserError(
                f"--PREDICTIONS {folder} has {len(found)} maps of {name}: "
                f"{' and '.join(path.name for path in found)}; leave only the one that is meant"
            )
        path = found[0]
        if path in maps.values():
            raise UserError(f"{path} would be the map of two images; keep the sub-folders of the data set")
        maps[name] = path
    return maps


def read_map(path: Path, classes: Classes, sample: Sample) -> np.ndarray:
    """Return a sample's part of a class map, (H, W) or (K, H, W), IGNORE where it has no data.

    Raises:
        UserError: another size than the image, other bands, or a value that is no class.
    """
    several, num_classes = classes.multilabel, classes.num_classes
    own, image = (band_label_info if several else label_info)(path), raster_info(sample.image)
    if (own.height, own.width) != (image.height, image.width):
        raise UserError(
            f"{path} has {own.height} x {own.width} pixels, its image {image.height} x {image.width}; "
            "predict the image again"
        )
    if several and own.bands != num_classes:
        raise UserError(f"{path} has {own.bands} bands; {num_classes} are wanted, one for each class")
    ids, valid = (read_band_label if several else read_label)(path, sample.window)
    # PNGs of the predict programs mark missing data by the largest value.
    valid &= ids != (255 if num_classes <= 255 else 65535)
    highest = 1 if several else num_classes - 1
    wrong = valid & ((ids < 0) | (ids > highest))
    if wrong.any():
        raise UserError(
            f"{path} holds {ids[wrong][0]} in {np.count_nonzero(wrong)} pixels; "
            + (f"class ids from 0 to {highest} are wanted" if not several else "1 and 0 are wanted")
        )
    return np.where(valid, ids.astype(np.int64), IGNORE)


def evaluate_files(
    maps: dict[str, Path],
    images: SegmentationDataset,
    each: Each,
    progress: Callable[[Iterable], Iterable],
    share: range | None = None,
) -> tuple[ConfusionMatrix, list[Metrics], int]:
    """Compare class maps with the masks of all images.

    Args:
        maps: name of an image -> its map.
        images: with labels.
        each: called with the batch of one image, its predictions and its masks, (1, H, W) or (1, K, H, W).
        progress: wraps the numbers of the images.
        share: numbers of the images to compare, default: all.

    Returns:
        The confusion matrix, the scores of each of these images, and how many labelled pixels the maps leave
        out; these are not counted.
    """
    confusion = ConfusionMatrix(images.classes.num_classes, images.classes.task)
    scores: list[Metrics] = []
    left_out = 0
    for index in progress(range(len(images)) if share is None else share):
        item = images[index]
        ids = read_map(maps[item["name"]], images.classes, images.samples[index])
        left_out += int(((item["mask"] >= 0) & (ids == IGNORE)).sum())
        masks = torch.from_numpy(np.where(ids == IGNORE, IGNORE, item["mask"]).astype(np.int64))[None]
        predictions = torch.from_numpy(ids)[None]
        scores += [compute_metrics(matrix) for matrix in confusion.update(predictions, masks)]
        batch = {"image": item["image"][None], "valid": item["valid"][None], "name": [item["name"]]}
        each(batch, predictions, masks)
    return confusion, scores, left_out
