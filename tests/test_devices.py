"""Which devices the flags choose, on machines that are pretended."""

import pytest
import torch

from nets.errors import UserError
from utils.devices import USUAL_BATCH, batch_of_each, check_batch, choose_devices, describe
from utils.options import train_options


def chosen(monkeypatch, present: int, *words: str) -> list[str]:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    return [str(device) for device in choose_devices(train_options(list(words)))]


@pytest.mark.parametrize(
    ("present", "words", "expected"),
    [
        (0, [], ["cpu"]),
        (0, ["--MODE", "single"], ["cpu"]),
        (2, ["--USE_CPU"], ["cpu"]),
        (2, ["--USE_CPU", "--GPU_ID", "7"], ["cpu"]),
        (1, [], ["cuda:0"]),
        (3, [], ["cuda:0", "cuda:1", "cuda:2"]),
        (3, ["--MODE", "single"], ["cuda:0"]),
        (3, ["--GPU_ID", "2"], ["cuda:2"]),
        (3, ["--MODE", "single", "--GPU_ID", "1"], ["cuda:1"]),
        (3, ["--MODE", "muti", "--GPU_LIST", "2,0"], ["cuda:2", "cuda:0"]),
    ],
)
def test_choice(monkeypatch, present, words, expected):
    assert chosen(monkeypatch, present, *words) == expected


@pytest.mark.parametrize(
    ("present", "words", "message"),
    [
        (0, ["--GPU_ID", "0"], "GPU 0 was asked for; PyTorch sees no GPU here"),
        (2, ["--GPU_ID", "2"], r"GPU 2 was asked for; GPUs 0\.\.1 exist"),
        (2, ["--GPU_LIST", "0,5"], "GPU 5 was asked for"),
        (2, ["--GPU_LIST", "0;1"], "different numbers"),
        (2, ["--GPU_LIST", "1,1"], "different numbers"),
    ],
)
def test_refusals(monkeypatch, present, words, message):
    with pytest.raises(UserError, match=message):
        chosen(monkeypatch, present, *words)


def test_the_total_batch_must_divide():
    check_batch(6, 3)
    with pytest.raises(UserError, match="--BATCH_SIZE 4 does not divide by 3 GPUs; nearest that do: 3 or 6"):
        check_batch(4, 3)
    with pytest.raises(UserError, match="nearest that do: 3"):
        check_batch(2, 3)


def test_each_has_its_share_of_the_batch_or_the_usual_one():
    assert batch_of_each(6, 3) == 2 and batch_of_each(None, 3) == batch_of_each(None, 8) == USUAL_BATCH
    with pytest.raises(UserError, match="--BATCH_SIZE 4 does not divide by 3 processes"):
        batch_of_each(4, 3, "processes")


def test_the_gpu_of_apples_machines(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert chosen(monkeypatch, 0) == ["mps"] and chosen(monkeypatch, 0, "--GPU_ID", "0") == ["mps"]
    assert chosen(monkeypatch, 0, "--USE_CPU") == ["cpu"] and chosen(monkeypatch, 1) == ["cuda:0"]
    assert describe([torch.device("mps")]) == "Apple GPU"


def test_the_cpu_is_said():
    assert describe([torch.device("cpu")]).startswith("CPU (1 threads")
