"""TensorBoard and Weights & Biases, where they are asked for; both are packages of their own."""

import argparse
import uuid
from importlib.util import find_spec
from pathlib import Path

from nets.errors import UserError
from utils.options import plain_options

PACKAGES = {"TENSORBOARD": "tensorboard", "WANDB": "wandb"}


def check_trackers(options: argparse.Namespace) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        UserError: it is missing.
    """
    for flag, package in PACKAGES.items():
        if getattr(options, flag) and find_spec(package) is None:
            raise UserError(f"--{flag} is given; it needs another package: pip install {package}")


class Trackers:
    """Passes the rows of the log on.

    Args:
        options: flags of the run.
        folder: of the run.
        done: epochs or iterations that are done; what a tracker knows beyond them did not come to last.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, done: int = 0):
        self.board = self.online = None
        if options.TENSORBOARD:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)
        if options.WANDB:
            import wandb

            self.online = wandb.init(
                project="pureseg",
                name=folder.name,
                id=_run_id(folder),
                dir=str(folder),
                resume="allow",
                config=plain_options(options),
            )

    def add(self, row: dict) -> None:
        """Pass on a row, whose first column counts epochs or iterations; empty cells are left out."""
        mark, *_ = row.values()
        values = {name: float(value) for name, value in list(row.items())[1:] if value != ""}
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(_grouped(name), value, mark)
            self.board.flush()
        if self.online:
            self.online.log(values, step=mark)

    def close(self) -> None:
        """Write what is not written yet."""
        if self.board:
            self.board.close()
        if self.online:
            self.online.finish()


def _grouped(name: str) -> str:
    """Return a column's name with the group below which TensorBoard shows it."""
    if "loss" in name:
        return f"loss/{name}"
    return f"classes/{name}" if "_" in name else f"run/{name}"


def _run_id(folder: Path) -> str:
    """Return the id of a run, the same when it is resumed."""
    path = folder / "wandb_id.txt"
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")
