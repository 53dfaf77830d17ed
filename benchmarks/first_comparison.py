"""Every network family on the same budget, from scratch: a first comparison.

    python benchmarks/first_comparison.py --CAMVID data/camvid-small --WATER data/water8

The smallest variant of each family, and U-Net on three encoders, is trained on each data set for 12 epochs by
its plain recipe with AdamW: the same batches of 8, crops, scales from 0.5 to 2 and flips. The score is
that of the last epoch on the test split. Finished runs are kept in benchmarks/results/ and not repeated;
several processes may share the work.
"""

import argparse
import copy
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch  # noqa: E402

from benchmarks.common import (  # noqa: E402
    RESULTS,
    add_row,
    count_parameters,
    is_row,
    on_test_split,
    read_rows,
    scratch_folder,
    surroundings,
    train_run,
)
from benchmarks.learning_check import SMALLEST  # noqa: E402
from nets.errors import UserError  # noqa: E402
from nets.registry import find_model, get_builder, list_models  # noqa: E402
from utils.devices import unwrap  # noqa: E402
from utils.flag_types import number, size_pair  # noqa: E402
from utils.inference.padding import pad_to_rules  # noqa: E402
from utils.program import run_program  # noqa: E402
from utils.structure_report import multiply_adds  # noqa: E402
from utils.training.session import Session  # noqa: E402

TABLE = RESULTS / "first_comparison.csv"
KEY = ("network", "set", "epochs", "crop")
# Training crop (height, width) in pixels of each data set.
CROPS = {"camvid-small": (176, 240), "water8": (128, 128)}
ENCODERS = {"unet": ("resnet18", "vgg11_bn", "mobilenet_v2")}
BATCH = 8
BUDGET = ["--OPTIMIZER_TYPE", "adamw", "--AUGMENT", "light", "--BATCH_SIZE", str(BATCH)]
BUDGET += ["--MODEL_SAVE_EPOCHS", "1000"]
# The class whose score stands beside the mean.
SINGLE = "water"
# Title of a column of the table -> column of the results and its form.
COLUMNS = {
    "mIoU": ("test_mIoU", ".3f"),
    "water IoU": ("water_IoU", ".3f"),
    "GFLOPs": ("GFLOPs", ".1f"),
    "s/epoch": ("seconds_per_epoch", ".0f"),
}


def networks(families: Sequence[str]) -> dict[str, list[str]]:
    """Return the name of each network that takes part and the flags that build it."""
    found = {}
    for family in families:
        if family in ENCODERS:
            choices = [["--BACKBONE_TYPE", encoder] for encoder in ENCODERS[family]]
        else:
            choices = [SMALLEST.get(family, [])]
        for flags in choices:
            default = inspect.signature(get_builder(family)).parameters["backbone"].default
            found[f"{family} {' '.join(flags[1::2]) or default}"] = ["--MODEL_TYPE", family, *flags]
    return found


def compare(wanted: dict, flags: list[str], folder: Path, options: argparse.Namespace) -> dict:
    """Train and test one network on one data set and return its row of the results.

    Args:
        wanted: what identifies the run (see `asked`).
        flags: of train.py, for the network.
        folder: of the data set.
        options: the benchmark's flags.
    """
    crop = crop_of(wanted["set"], options)
    words = [*BUDGET, *flags, "--DATASET_PATH", str(folder.resolve()), "--EPOCHS", str(options.EPOCHS)]
    words += ["--CROP_SIZE", ",".join(map(str, crop)), "--NUM_WORKERS", str(options.NUM_WORKERS)]
    words += ["--AMP", options.AMP]
    with scratch_folder():
        trained = train_run(words, f"{wanted['network']} on {wanted['set']}", validate=False)
    session = trained.session
    metrics, classes = on_test_split(session, options.NUM_WORKERS).compute(), session.data.classes.names
    single = metrics.per_class["IoU"][classes.index(SINGLE)] if SINGLE in classes else None
    return {
        **wanted,
        "batch": BATCH,
        "test_mIoU": round(metrics.mIoU, 4),
        "water_IoU": "" if single is None else round(single, 4),
        "parameters": count_parameters(session.model),
        "GFLOPs": round(giga_flops(session, crop), 3),
        "seconds_per_epoch": round(trained.training_seconds / options.EPOCHS, 1),
        "precision": session.precision.name,
        **surroundings(session.device),
    }


def giga_flops(session: Session, crop: tuple[int, int]) -> float:
    """Return the floating-point operations of one crop in 10^9, as Structure.py counts them."""
    network = copy.deepcopy(unwrap(session.model)).cpu().eval()
    padded, _ = pad_to_rules(torch.zeros(1, network.bands, *crop), network)
    return 2 * multiply_adds(network, tuple(padded.shape)) / 1e9


def crop_of(set_name: str, options: argparse.Namespace) -> tuple[int, int]:
    """Return the training crop on a data set."""
    return options.CROP_SIZE or CROPS[set_name]


def asked(name: str, set_name: str, options: argparse.Namespace) -> dict:
    """Return what identifies a run of the asked budget."""
    crop = "x".join(map(str, crop_of(set_name, options)))
    return {"network": name, "set": set_name, "epochs": options.EPOCHS, "crop": crop}


def table(rows: list[dict]) -> str:
    """Return results of one budget as Markdown: a line per network, columns per data set, then the budget."""
    found = {(row["network"], row["set"]): row for row in rows}
    columns = [
        (set_name, title)
        for set_name in CROPS
        for title, (column, _) in COLUMNS.items()
        if any(row["set"] == set_name and row[column] for row in rows)
    ]
    lines = ["| " + " | ".join(["network", "parameters", *(" ".join(column) for column in columns)]) + " |"]
    lines.append("|" + "---|" * (len(columns) + 2))
    millions = {row["network"]: int(row["parameters"]) / 1e6 for row in rows}
    for name in sorted(millions):
        cells = [name, f"{millions[name]:.2f} M"]
        for set_name, title in columns:
            column, form = COLUMNS[title]
            value = found.get((name, set_name), {}).get(column)
            cells.append(format(float(value), form) if value else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *budgets(rows)])


def budgets(rows: list[dict]) -> list[str]:
    """Return a line per data set that says how it was trained, and on what."""
    lines = []
    for set_name in CROPS:
        own = [row for row in rows if row["set"] == set_name]
        for epochs, crop, batch in sorted({(row["epochs"], row["crop"], row["batch"]) for row in own}):
            where = ", ".join(
                sorted({f"{row['device']} in {row['precision']} with torch {row['torch']}" for row in own})
            )
            lines.append(f"{set_name}: {epochs} epochs, crops of {crop} pixels, batches of {batch}; {where}")
    return lines


def read_options(arguments: list[str] | None) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Return the flags and the folder of each data set that takes part.

    Raises:
        UserError: an unknown data set, or one without a folder.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--CAMVID", type=Path, help="folder of camvid-small")
    parser.add_argument("--WATER", type=Path, help="folder of water8")
    parser.add_argument(
        "--SETS", help=f"names separated by commas, of {', '.join(CROPS)} (default: as given)"
    )
    parser.add_argument("--FAMILIES", default=",".join(list_models()), help="names separated by commas")
    parser.add_argument(
        "--EPOCHS", type=number(int, 1), default=12, help="passes over each set (default: 12)"
    )
    parser.add_argument("--CROP_SIZE", type=size_pair, help="H,W in pixels (default: 176,240 and 128,128)")
    parser.add_argument("--AMP", choices=("auto", "bf16", "off"), default="auto", help="as in train.py")
    parser.add_argument(
        "--NUM_WORKERS", type=number(int, 0), default=0, help="reading processes (default: 0)"
    )
    options = parser.parse_args(arguments)
    folders = dict(zip(CROPS, (options.CAMVID, options.WATER), strict=True))
    given = [name for name, folder in folders.items() if folder is not None]
    chosen = given if options.SETS is None else options.SETS.split(",")
    missing = [name for name in chosen if name not in given]
    if missing or not chosen:
        raise UserError(
            f"no folder is given for {', '.join(missing) or 'any data set'}; "
            "--CAMVID is that of camvid-small, --WATER that of water8"
        )
    return options, {name: folders[name] for name in chosen}


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and print the table."""
    options, folders = read_options(arguments)
    families = [find_model(name)[0] for name in options.FAMILIES.split(",")]
    for name, flags in networks(families).items():
        for set_name, folder in folders.items():
            wanted = asked(name, set_name, options)
            if not any(is_row(row, wanted, KEY) for row in read_rows(TABLE)):
                add_row(TABLE, compare(wanted, flags, folder, options), KEY)
    budget = [asked("", set_name, options) for set_name in CROPS]
    print(table([row for row in read_rows(TABLE) if any(is_row(row, own, KEY[1:]) for own in budget)]))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
