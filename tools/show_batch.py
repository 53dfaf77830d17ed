"""Draw training batches as the network will see them: crops, augmentation and masks by the flags of train.py.

    python tools/show_batch.py --DATASET_PATH datasets/demo --AUGMENT strong --BANDS_SHOWN 4,3,2

All flags of train.py are taken, so that the command of a run can be pasted behind this program's name.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.flag_types import Flag, number  # noqa: E402
from utils.flags import DATA, HARDWARE, NETWORK, TRAINING  # noqa: E402
from utils.options import parse  # noqa: E402
from utils.program import run_program  # noqa: E402
from utils.run_flags import RUN  # noqa: E402


def band_list(text: str) -> tuple[int, ...]:
    """Parse "4,3,2" or "1": numbers of bands, from 1."""
    try:
        bands = tuple(int(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if len(bands) not in (1, 3) or min(bands) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is given; one or three numbers like 4,3,2 are wanted")
    return bands


SHOW = (
    "what to draw",
    (
        Flag(
            "BANDS_SHOWN",
            None,
            "bands shown as red, green, blue (or one as grey), counted from 1; "
            "default: by the bands' names, else the first three",
            band_list,
            metavar="R,G,B",
        ),
        Flag("OUTPUT", "batch.png", "picture to write; of several batches they are numbered", metavar="FILE"),
        Flag("BATCHES", 1, "batches to draw, one picture each", number(int, 1)),
        Flag("EPOCH", 1, "epoch of the run, from 1, whose batches are drawn", number(int, 1)),
    ),
)


def main(argv: list[str] | None = None) -> None:
    """Draw as the flags in `argv` say (default: the command line)."""
    options = parse("Draw training batches.", (SHOW, DATA, NETWORK, TRAINING, RUN, HARDWARE), argv)
    # Imported here, so that --help and a mistyped flag answer without waiting for torch.
    from utils.data.bands import rgb_bands
    from utils.data.loaders import TrainingSampler, collate, to_device
    from utils.evaluation.batches import display_limits, draw_batch
    from utils.training.setup import crop_size, read_dataset
    from utils.training.start import band_statistics
    from utils.training.training_data import training_flip, training_level, training_set

    if Path(options.OUTPUT).suffix.lower() != ".png":
        raise UserError(f"--OUTPUT {options.OUTPUT} is no PNG; give a name that ends with .png")
    data = read_dataset(options)
    shown = tuple(band - 1 for band in options.BANDS_SHOWN or ()) or rgb_bands(data.bands, data.band_names)
    if max(shown) >= data.bands:
        raise UserError(f"--BANDS_SHOWN {max(shown) + 1}: the images have {data.bands} bands; count from 1")
    level, notices = training_level(options, data)
    statistics = band_statistics(options, data, None)
    dataset = training_set(options, data, crop_size(options, data), statistics.center, statistics.scale)
    limits = display_limits(dataset.augmentation.ranges, shown, data.dtype)
    sampler = TrainingSampler(len(dataset), options.BATCH_SIZE, options.SEED)
    names = ", ".join(data.band_names[band] for band in shown)
    flip, _ = training_flip(options, data)
    print(*data.notices, *notices, f"augment: {level.describe()}; flip {flip}", sep="\n")
    for number_, keys in enumerate(sampler.batches(options.EPOCH - 1)[: options.BATCHES], start=1):
        batch = collate([dataset[key] for key in keys])
        images, masks = to_device(batch, "cpu")
        path = _numbered(Path(options.OUTPUT), number_, options.BATCHES)
        title = f"{level.name}, epoch {options.EPOCH}, batch {number_}; bands {names}"
        draw_batch(images.numpy(), masks.numpy(), batch["name"], shown, limits, data.classes, path, title)
        print(path)


def _numbered(path: Path, index: int, count: int) -> Path:
    return path if count == 1 else path.with_stem(f"{path.stem}_{index}")


if __name__ == "__main__":
    sys.exit(run_program(main))
