"""Every test starts alike: one thread, no leftovers of another test's determinism."""

import gc
import os
import shutil
import tempfile

# Before torch is imported, here and in programs that tests start: xdist already uses every core.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing is left in the home folder, and nothing is known of other runs.
os.environ["PURESEG_CACHE"] = tempfile.mkdtemp()

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish():
    # What is imported stays; looking through it again and again takes half the time of building networks.
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    shutil.rmtree(os.environ["PURESEG_CACHE"], ignore_errors=True)
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _fresh_torch():
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
