"""Check a data set before training: what it consists of, and what is wrong with it.

    python tools/check_dataset.py datasets/demo
    python tools/check_dataset.py scene.tif,label.tif --LABEL_MAP "0=ignore,1=water,2=land"

Reads every file as train.py does, but names all mistakes instead of stopping at the first. All flags of
train.py are taken, so that the command of a run can be pasted behind this program's name. Writes
findings.csv, summary.json and contact_sheet.png. Exit code: 0 nothing that harms training, 1 training would
be harmed or would stop, 2 a mistake in the flags.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.flag_types import Flag  # noqa: E402
from utils.flags import DATA, HARDWARE, NETWORK, TRAINING  # noqa: E402
from utils.options import parse  # noqa: E402
from utils.program import run_program  # noqa: E402
from utils.run_flags import RUN  # noqa: E402

CHECK = (
    "what to check",
    (
        Flag(
            "OUTPUT",
            None,
            "folder for findings, summary and contact sheet; default: output/check_NAME",
            metavar="FOLDER",
        ),
        Flag("QUICK", False, "look at names, headers and labels alone, not at the images' pixels", None),
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Check as the flags in `argv` say (default: the command line), and return the exit code."""
    groups = (CHECK, DATA, NETWORK, TRAINING, RUN, HARDWARE)
    options = parse("Check a data set before training.", groups, argv, positional="DATASET_PATH")
    folder = output_folder(options)
    # Imported here, so that --help and a mistyped flag answer without waiting for torch.
    from tools.check_report import describe, examine, tell

    data, scanned, findings = examine(options)
    if data is not None:
        describe(data, scanned, folder)
    harmed = tell(findings, options.DATASET_PATH, folder)
    print(f"written to {folder}")
    return int(harmed)


def output_folder(options: argparse.Namespace) -> Path:
    """Return where to write: never inside the data set, where the files might be taken for its own."""
    path = Path(options.DATASET_PATH.partition(",")[0])
    base = path.resolve()
    if options.OUTPUT is not None:
        folder = Path(options.OUTPUT)
        if base.is_dir() and folder.resolve().is_relative_to(base):
            raise UserError(f"--OUTPUT {folder} lies inside the data set {path}; name a folder outside of it")
        return folder
    folder = Path("output") / f"check_{base.stem if base.is_file() else base.name}"
    return base.parent / folder.name if folder.resolve().is_relative_to(base) else folder


if __name__ == "__main__":
    sys.exit(run_program(main))
