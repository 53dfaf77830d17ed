"""Starting one process per GPU, or several on the CPU, by the program itself.

The processes are this program again, with the same flags: torch's elastic launcher tells each its number, as
`torchrun` does, and ends all when one fails.
"""

import argparse
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nets.errors import UserError
from utils.data.loaders import processors
from utils.devices import batch_of_each, choose_devices
from utils.processes import is_launched


def processes_to_start(options: argparse.Namespace) -> int:
    """Return how many processes the flags ask for on this machine; 1 is this one alone.

    Raises:
        UserError: a GPU that does not exist, a batch that cannot be shared, or a count that contradicts.
    """
    if is_launched():
        return 1
    devices = choose_devices(options)
    asked = options.PROCESSES
    if devices[0].type != "cpu" and asked not in (None, len(devices)):
        raise UserError(
            f"--PROCESSES {asked} is given; there is one process for each of {len(devices)} GPU(s): "
            "choose them with --GPU_LIST, or use --USE_CPU"
        )
    wanted = len(devices) if devices[0].type != "cpu" else asked or 1
    batch_of_each(options.BATCH_SIZE, wanted, "processes" if devices[0].type == "cpu" else "GPUs")
    return wanted


def launch(count: int, program: Path, argv: Sequence[str] | None) -> int:
    """Run a program in `count` processes until all have ended and return the exit code.

    Args:
        count: number of processes on this machine.
        program: the script.
        argv: its arguments, default: the command line's.
    """
    # The processes say what went wrong; what the launcher logs about it is for its developers.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Seconds until a process that waits for one that has ended is ended too.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "15")
    # As many threads in all as there are processors: each process would take them all.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // count)))
    with tempfile.TemporaryDirectory(prefix="pureseg_") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        arguments = sys.argv[1:] if argv is None else argv
        try:
            elastic_launch(config, sys.executable)(str(program), *arguments)
        except ChildFailedError as failed:
            return _exit_code(*failed.get_first_failure())
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
    return 0


def _exit_code(rank: int, failure: object) -> int:
    """Return the code of the process that failed first; one that was killed could not say so itself."""
    if failure.exitcode >= 0:
        return failure.exitcode
    print(
        f"process {rank} was ended by signal {-failure.exitcode}"
        + (" (did the machine run out of memory?)" if failure.exitcode == -9 else ""),
        file=sys.stderr,
    )
    return 128 - failure.exitcode
