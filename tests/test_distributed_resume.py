"""A run of two processes that is killed in the middle of an epoch ends with the bits of one that was not."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.resume_helpers import check_equal
from tests.resumed_processes import KILLED_AT
from tests.tiny_dataset import write_dataset
from utils.checkpoint import read_checkpoint


def in_two_processes(folder: Path, phase: str) -> list[int]:
    """Return the exit codes."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [str(free.getsockname()[1]) for free in (one, other)]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0], "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.resumed_processes", str(folder), phase, ports[1]]
    started = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **meeting, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    return [process.wait(timeout=300) for process in started]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process so")
def test_two_processes_killed_in_the_middle_of_an_epoch_go_on(tmp_path):
    write_dataset(tmp_path / "data", bands=2, size=64, tiles=10)
    # The other one may find the connection broken before it comes to its own end.
    assert in_two_processes(tmp_path, "killed")[0] == -signal.SIGKILL
    saved = read_checkpoint(tmp_path / "pth_files/killed/last.pth")["training"]
    assert saved["iteration"] == KILLED_AT - 1 and saved["validated_at"] == 5 and not saved["finished"]
    assert in_two_processes(tmp_path, "rest") == [0, 0]
    check_equal(tmp_path, "killed")
