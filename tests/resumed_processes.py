"""What tests/test_distributed_resume.py runs in two processes: a run, one that is killed, and its rest.

python -m tests.resumed_processes FOLDER PHASE PORT, with the environment that a launcher makes; at PORT the
processes meet a second time.
"""

import os
import signal
import sys

import torch

import train
from tests.resume_helpers import start
from utils.training import session

KILLED_AT = 7  # of ten iterations, five in each epoch; the sixth was saved
TWO = ("--PARALLEL", "ddp", "--PROCESSES", "2", "--BATCH_SIZE", "2")


def kill_when_it_comes_to(iteration: int) -> None:
    """Let this process end at once, without a chance to save anything."""
    original = session.Session.step_done

    def step_done(self, losses) -> None:
        original(self, losses)
        if self.iteration == iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    session.Session.step_done = step_done


def main(folder: str, phase: str, port: str) -> int:
    """Run one phase and return the exit code."""
    os.chdir(folder)
    if phase == "rest":
        return train.main(["--RESUME", "killed"])
    code = start("whole", *TWO)
    os.environ["MASTER_PORT"] = port  # at the old one the second process might still meet the first run's
    kill_when_it_comes_to(KILLED_AT)
    return code or start("killed", *TWO)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(*sys.argv[1:]))
