"""What processes that share a work have to agree upon; in a single process nothing of it does anything.

Everything here is called by all processes, in the same order.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from nets.errors import UserError
from utils.devices import choose_devices
from utils.processes import is_launched

# A process that fails ends the others at once; this is how long one may be busy alone with a large data set.
PATIENCE = timedelta(hours=3)


def count() -> int:
    """Return the number of processes that work together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return dist.get_rank() if _together() else 0


def leads() -> bool:
    """Return whether this process is the first, which alone prints, draws and writes."""
    return rank() == 0


def join(options: argparse.Namespace) -> torch.device:
    """Return the device of this process, after it has met the others that its launcher started.

    Raises:
        UserError: fewer GPUs than processes on this machine.
    """
    devices = choose_devices(options)
    if not is_launched():
        return devices[0]
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    on_gpu = devices[0].type == "cuda"
    if on_gpu and local >= len(devices):
        raise UserError(
            f"process {local + 1} of this machine has no GPU: {len(devices)} may be used; "
            "start as many with --nproc-per-node, or look at --MODE and --GPU_LIST"
        )
    device = devices[local] if on_gpu else devices[0]
    if on_gpu:
        torch.cuda.set_device(device)
    if not _together():
        # gloo also carries what is said between processors where the gradients take NCCL's way.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    return device


def leave() -> None:
    """Wait for the others and part."""
    if _together():
        meet()
        dist.destroy_process_group()


@contextmanager
def first_before_the_others() -> Iterator[None]:
    """Let the first process do something, and then the others, which find what it has written."""
    if not leads():
        meet()
    yield
    if leads():
        meet()


def agree(text: str) -> str:
    """Return the text of the first process."""
    if count() == 1:
        return text
    content = torch.zeros(4096, dtype=torch.uint8)
    encoded = text.encode()
    if leads() and encoded:
        content[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return bytes(content.tolist()).rstrip(b"\0").decode()


def gathered(text: str) -> list[str]:
    """Return the text of each process, of any length."""
    if count() == 1:
        return [text]
    encoded = torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8)
    lengths = [int(length) for length in everyones(torch.tensor(len(encoded)))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(encoded)] = encoded
    return [bytes(content.numpy()).rstrip(b"\0").decode() for content in everyones(padded)]


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes, without a gradient."""
    values = values.detach().clone()
    if count() > 1:
        dist.all_reduce(values)
    return values


def everyones(tensor: Tensor) -> list[Tensor]:
    """Return the tensor of each process, all of one size."""
    if count() == 1:
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(tensors, tensor)
    return tensors


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def meet() -> None:
    """Wait for the others."""
    total(torch.zeros(()))
