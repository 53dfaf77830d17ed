"""Download a public data set with torchvision and make it ready for train.py.

    python tools/prepare_dataset.py pet
    python tools/prepare_dataset.py cityscapes --ROOT /data/cityscapes

pet is Oxford-IIIT Pet (pet and background, the border is ignored), voc is Pascal VOC 2012, sbd the
Semantic Boundaries Dataset with VOC's 21 classes. Cityscapes must be downloaded by hand after registration;
its archives leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip in the folder are unpacked.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.program import run_program  # noqa: E402

# Trimap value -> label: 1 is the pet, 2 the background, 3 the border between them.
PET_VALUES = {1: 1, 2: 0, 3: 255}


def prepare_pet(root: Path) -> Path:
    """Write root/pet: trainval.txt becomes train.txt, from which train.py holds a part back."""
    import numpy as np
    from PIL import Image
    from torchvision.datasets import OxfordIIITPet
    from tqdm import tqdm

    OxfordIIITPet(root, split="trainval", target_types="segmentation", download=True)
    source, target = root / "oxford-iiit-pet", root / "pet"
    table = np.zeros(256, dtype=np.uint8)
    for value, label in PET_VALUES.items():
        table[value] = label
    for split, listed in (("train", "trainval"), ("test", "test")):
        lines = (source / "annotations" / f"{listed}.txt").read_text(encoding="utf-8").splitlines()
        names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
        _place(source / "images", (f"{name}.jpg" for name in names), target / "images")
        (target / "labels").mkdir(exist_ok=True)
        for name in tqdm(names, f"{split} masks", leave=False):
            trimap = np.array(Image.open(source / "annotations" / "trimaps" / f"{name}.png"))
            Image.fromarray(table[trimap]).save(target / "labels" / f"{name}.png")
        _write_list(target, split, names)
    _write_classes(target, ("background", "pet"))
    return target


def prepare_voc(root: Path) -> Path:
    """Unpack root/VOCdevkit, which is read as it is."""
    from torchvision.datasets import VOCSegmentation

    if not (root / "VOCdevkit" / "VOC2012" / "SegmentationClass").is_dir():
        VOCSegmentation(root, year="2012", image_set="trainval", download=True)
    return root / "VOCdevkit"


def prepare_sbd(root: Path) -> Path:
    """Write root/sbd with the masks as PNG."""
    from torchvision.datasets import SBDataset

    from tools.sbd import convert_masks, read_names
    from utils.data.class_lists import VOC_NAMES

    target = root / "sbd"
    source = target / "source"
    if not (source / "cls").is_dir():
        SBDataset(source, image_set="train", mode="segmentation", download=True)
    for split in ("train", "val"):
        names = read_names(source / f"{split}.txt")
        _place(source / "img", (f"{name}.jpg" for name in names), target / "images")
        convert_masks(source, names, target / "labels")
        _write_list(target, split, names)
    _write_classes(target, VOC_NAMES)
    return target


def prepare_cityscapes(root: Path) -> Path:
    """Unpack the archives that the user has put into the folder; the result is read as it is."""
    from torchvision.datasets import Cityscapes

    try:
        for split in ("train", "val"):
            Cityscapes(root, split=split, mode="fine", target_type="semantic")
    except RuntimeError as error:
        raise UserError(
            f"{root} holds neither leftImg8bit/ and gtFine/ nor leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip; download them from https://www.cityscapes-dataset.com"
        ) from error
    return root


SETS = {"pet": prepare_pet, "voc": prepare_voc, "sbd": prepare_sbd, "cityscapes": prepare_cityscapes}


def _place(source: Path, names: Iterable[str], folder: Path) -> None:
    """Put files into a folder: as hard links where the disk can, so that they take no room."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = folder / name
        if target.exists():
            continue
        try:
            os.link(source / name, target)
        except OSError:
            shutil.copyfile(source / name, target)


def _write_list(folder: Path, split: str, names: Iterable[str]) -> None:
    path = folder / "annotations" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8", newline="\n")


def _write_classes(folder: Path, names: Iterable[str]) -> None:
    from utils.data.labels import voc_color

    names = list(names)
    content = {
        "names": names,
        "palette": [voc_color(index) for index in range(len(names))],
        "ignore_index": 255,
    }
    (folder / "classes.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Download a public data set and make it ready for train.py.")
    parser.add_argument("NAME", choices=SETS, help="data set")
    parser.add_argument(
        "--ROOT", type=Path, default=Path("datasets"), help="where it goes (default: datasets)"
    )
    options = parser.parse_args(argv)
    options.ROOT.mkdir(parents=True, exist_ok=True)
    folder = SETS[options.NAME](options.ROOT)
    from utils.data.layouts import Request, find_layout

    layout = find_layout(Request(folder))
    sizes = ", ".join(f"{split} {len(entries)}" for split, entries in layout.splits.items())
    print(f"{layout.title}: {sizes}\ntrain on it: python train.py --DATASET_PATH {folder}")


if __name__ == "__main__":
    sys.exit(run_program(main))
