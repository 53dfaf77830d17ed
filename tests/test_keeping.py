"""How many decoded images a run keeps, said in one line."""

import mmap

import numpy as np
import pytest

from tests.tiny_dataset import write_dataset
from utils.data.kept import KeptSamples
from utils.data.layout import scan_dataset
from utils.options import train_options
from utils.training import keeping
from utils.training.keeping import GIB, kept_samples

PAGE = mmap.PAGESIZE  # a tile of 16 x 16 pixels needs one


@pytest.fixture
def data(tmp_path):
    return scan_dataset(write_dataset(tmp_path))


def decide(data, *words, passes=4.0):
    return kept_samples(train_options(list(words)), data, "cpu", passes)


def test_all_or_as_many_as_fit(data):
    kept, about = decide(data, "--KEEP_DECODED", "1")
    assert about == ("decoded_images", "all kept in memory, 0.00 GiB", "--KEEP_DECODED")
    assert len(kept.places) == 3 and kept.whole(data.splits["train"][0]).image.dtype == np.uint16
    kept, (_, value, _) = decide(data, "--KEEP_DECODED", str(3 * PAGE / GIB))
    assert value.startswith("2 of 3 kept") and len(kept.places) == 2


def test_nothing(data):
    assert decide(data, passes=3.9) == (None, ("decoded_images", "not kept", "worth it from 4 epochs on"))
    assert decide(data, "--KEEP_DECODED", "1", passes=1.0)[0] is None
    assert decide(data, "--KEEP_DECODED", "1", passes=1.1)[0] is not None
    assert decide(data, "--KEEP_DECODED", "0") == (None, ("decoded_images", "not kept", "--KEEP_DECODED"))
    assert decide(data, "--KEEP_DECODED", "1e-6")[1][2] == "none fits into 0.00 GiB"


def test_the_room_is_divided(data, monkeypatch):
    rooms, kept = [], KeptSamples(data.splits["train"], data.classes, 3, "uint16", GIB)
    monkeypatch.setattr(keeping, "KeptSamples", lambda *args: rooms.append(args[-1]) or kept)
    monkeypatch.setattr(keeping, "free_memory", lambda: 8 * GIB)
    reason = decide(data)[1][2]
    assert reason == "at most a quarter of the 8.0 GiB that are free; --KEEP_DECODED"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    decide(data, "--NUM_WORKERS", "5")
    monkeypatch.setattr(keeping, "shared_with_workers", lambda: False)
    decide(data, "--NUM_WORKERS", "5")
    monkeypatch.setattr(keeping, "free_memory", lambda: None)
    decide(data, "--NUM_WORKERS", "0")
    assert rooms == [2 * GIB, GIB, GIB // 5, GIB // 2]
