"""Every test starts alike: one thread, no leftovers of another test's determinism."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

# Before torch is imported, here and in programs that tests start: xdist already uses every core.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing is left in the home folder, and nothing is known of other runs.
os.environ["PURESEG_CACHE"] = tempfile.mkdtemp()

import pytest
import torch

# A failing assert of theirs shows its values too.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.glob("*helpers.py")))

from tests.tiny_dataset import write_dataset  # noqa: E402

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


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A ten-band, three-class set of 48-pixel tiles; the runs go to this folder too."""
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path / "data", bands=10, size=48, tiles=5)
