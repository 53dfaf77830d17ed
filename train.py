"""Train a segmentation network: flags -> data, network, loss, optimiser -> epochs or iterations.

    python train.py --DATASET_PATH datasets/demo --MODEL_TYPE unet --EPOCHS 100

Everything of a run stands in pth_files/{RUN_NAME}/. All flags: python train.py --help
"""

import argparse
import sys
from pathlib import Path

from utils.options import train_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Train as the flags in `argv` say (default: the command line) and return the exit code."""
    options = train_options(argv)
    # Imported here, so that --help and a mistyped flag answer without waiting for torch.
    from utils.launch import launch
    from utils.training.launch import processes_to_start

    processes = processes_to_start(options)
    if processes > 1:
        return launch(processes, Path(__file__).resolve(), argv)
    train(options)
    return 0


def train(options: argparse.Namespace) -> None:
    """Train in this process, which may be one of several."""
    from utils.distributed import leave
    from utils.training.announce import say
    from utils.training.engine import train_one_epoch
    from utils.training.farewell import farewell
    from utils.training.lr_find import find_lr
    from utils.training.memory import advice_on_memory
    from utils.training.opening import open_session
    from utils.training.validation import validate
    from utils.training.warnings import gathered_warnings

    if options.LR_FIND:
        say(*find_lr(options))
        leave()
        return
    session = open_session(options)
    needed = session.options, session.crop, session.device, session.accumulate
    with gathered_warnings(), advice_on_memory(*needed), session.signals:
        while session.unfinished:
            train = train_one_epoch(session, session.iterations, session.title)
            confusion, val, scores = validate(session)
            session.finish_epoch(train, val, confusion, scores)
    session.close()
    say(*farewell(session))
    leave()


if __name__ == "__main__":
    sys.exit(run_program(main))
