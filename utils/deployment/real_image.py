"""Real images for the check of an exported file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nets.errors import UserError
from utils.data.band_choice import TrainedBands
from utils.data.layouts import Request, find_layout
from utils.data.raster import Window, raster_info, read_image
from utils.inference.padding import pad_to_rules
from utils.inference.windows import to_images


def known_image(network: nn.Module) -> Path | None:
    """Return the first validation image (else test, train) of the data set that the checkpoint names.

    None where it is no longer there, has other bands, or is not all that the network takes (--EXTRA_IMAGES).
    """
    flags: Mapping[str, str | None] = network.about.get("options") or {}
    if not flags.get("DATASET_PATH") or TrainedBands.of(network).extra_files:
        return None
    request = Request(Path(flags["DATASET_PATH"]), flags.get("LABEL_DIR"))
    try:
        splits = find_layout(request, flags.get("DATASET_FORMAT") or "auto").splits
        image = next(splits[name][0].image for name in ("val", "test", "train") if splits.get(name))
        TrainedBands.of(network).choose(raster_info(image).band_names, str(image))
    except (UserError, StopIteration):
        return None
    return image


def cut_out(network: nn.Module, path: str | Path, batch: int, size: tuple[int, int]) -> Tensor:
    """Return parts (B, C, H, W) of an image file: its middle, and for a second image its last corner.

    An image that is too small goes on mirrored. The first rows and columns are made invalid.

    Raises:
        UserError: the image has other bands.
    """
    info = raster_info(path)
    order = TrainedBands.of(network).choose(info.band_names, f"--IMAGE {path}")
    height, width = min(size[0], info.height), min(size[1], info.width)
    below, right = info.height - height, info.width - width
    more = [(0, 0), (0, size[0] - height), (0, size[1] - width)]
    parts = []
    for place in [(below // 2, right // 2), (below, right)][:batch]:
        image, valid = read_image(path, Window(*place, height, width))
        image = np.pad(image if order is None else image[list(order)], more, mode="symmetric")
        parts.append(to_images(image, np.pad(valid, more[1:], mode="symmetric")))
    images = torch.stack(parts)
    images[:, :, : size[0] // 8, : size[1] // 8] = torch.nan
    return pad_to_rules(images, network)[0]
