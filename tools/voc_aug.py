"""Extend Pascal VOC 2012 by SBD: the 10,582 training images of the literature.

    python tools/voc_aug.py VOCdevkit benchmark_RELEASE

Writes VOC2012/SegmentationClassAug/ and VOC2012/ImageSets/Segmentation/trainaug.txt: the training images of
VOC and all images of SBD, without VOC's validation images. VOC's own masks are kept where it has some. Then
`python train.py --DATASET_PATH VOCdevkit` trains on the extended list.
"""

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.program import run_program  # noqa: E402

FULL = 10_582


def augment(voc: Path, sbd: Path) -> list[str]:
    """Write the masks and the list; return the names in it.

    Args:
        voc: VOCdevkit, or VOC2012 itself.
        sbd: benchmark_RELEASE, or its folder dataset.

    Raises:
        UserError: a folder, a list or a mask is missing.
    """
    from tools.sbd import convert_masks, read_names
    from utils.files import replacing

    voc = _below(voc, ("", "VOC2012", "VOCdevkit/VOC2012"), "ImageSets/Segmentation/train.txt")
    sbd = _below(sbd, ("", "dataset", "benchmark_RELEASE/dataset"), "cls")
    lists = voc / "ImageSets" / "Segmentation"
    own, val = read_names(lists / "train.txt"), set(read_names(lists / "val.txt"))
    added = {*read_names(sbd / "train.txt"), *read_names(sbd / "val.txt")} - val - set(own)
    names = sorted({*own, *added} - val)
    absent = [name for name in names if not (voc / "JPEGImages" / f"{name}.jpg").is_file()]
    if absent:
        raise UserError(
            f"{voc / 'JPEGImages'} lacks {len(absent)} of the images, e.g. {absent[0]}.jpg; "
            "unpack VOC 2012 whole"
        )
    folder = voc / "SegmentationClassAug"
    convert_masks(sbd, added, folder)
    for name in (*own, *sorted(val)):
        shutil.copyfile(voc / "SegmentationClass" / f"{name}.png", folder / f"{name}.png")
    with replacing(lists / "trainaug.txt") as part:
        part.write_text("\n".join(names) + "\n", encoding="utf-8", newline="\n")
    return names


def _below(root: Path, places: tuple[str, ...], needed: str) -> Path:
    for place in places:
        if (root / place / needed).exists():
            return root / place
    raise UserError(
        f"{root} holds no {needed}; give VOCdevkit and benchmark_RELEASE as their archives unpack"
    )


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Extend Pascal VOC 2012 by the masks of SBD.")
    parser.add_argument("VOC", type=Path, help="folder VOCdevkit")
    parser.add_argument("SBD", type=Path, help="folder benchmark_RELEASE")
    options = parser.parse_args(argv)
    names = augment(options.VOC, options.SBD)
    note = "" if len(names) == FULL else f"; the full sets have {FULL:,}"
    print(f"trainaug.txt: {len(names):,} images{note}")
    print(f"train on them: python train.py --DATASET_PATH {options.VOC}")


if __name__ == "__main__":
    sys.exit(run_program(main))
