"""Masks of the Semantic Boundaries Dataset (SBD), which come as MATLAB files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from tqdm import tqdm

from nets.errors import UserError
from utils.data.labels import voc_color
from utils.files import replacing


def read_mask(path: Path) -> np.ndarray:
    """Return the class ids (H, W) of a file of `cls/`: 0 background, 1..20."""
    try:
        content = loadmat(path, variable_names=["GTcls"], squeeze_me=True, struct_as_record=False)
        return np.asarray(content["GTcls"].Segmentation, dtype=np.uint8)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, MatReadError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read as a mask of SBD ({reason}); unpack the archive again"
        ) from error


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write class ids as a palette PNG with the colours of Pascal VOC; it appears whole or not at all."""
    picture = Image.fromarray(mask, "P")
    picture.putpalette([part for index in range(256) for part in voc_color(index)])
    with replacing(path) as part:
        picture.save(part, format="PNG")


def convert_masks(sbd: Path, names: Iterable[str], folder: Path) -> None:
    """Write the masks of these names into a folder, those that are there already excepted."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in tqdm(sorted(names), "SBD masks", leave=False):
        target = folder / f"{name}.png"
        if not target.is_file():
            write_mask(target, read_mask(sbd / "cls" / f"{name}.mat"))


def read_names(path: Path) -> list[str]:
    """Return the names in a list."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; unpack the archive again")
    return path.read_text(encoding="utf-8").split()
