"""Every test starts alike: one thread, no leftovers of another test's determinism."""

import os

# Before torch is imported, here and in programs that tests start: xdist already uses every core.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_torch():
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
