"""How many processes a training takes."""

import argparse
import io
from contextlib import redirect_stderr

from nets.errors import UserError
from utils import launch
from utils.devices import choose_devices
from utils.processes import is_launched
from utils.training.resume import resume


def processes_to_start(options: argparse.Namespace) -> int:
    """Return how many processes the flags ask for, or those of the run that is resumed; 1 is this one alone.

    Raises:
        UserError: a GPU that does not exist, a batch that cannot be shared, or a count that contradicts.
    """
    if is_launched():
        return 1
    with redirect_stderr(io.StringIO()):  # the processes themselves say how they go on
        options = resume(options)[0]
    if options.PARALLEL != "dp":
        return launch.processes_to_start(options)
    if options.PROCESSES not in (None, 1):
        raise UserError(
            f"--PROCESSES {options.PROCESSES} is given; --PARALLEL dp is one process: leave it out or use ddp"
        )
    choose_devices(options)
    return 1
