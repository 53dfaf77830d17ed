"""What training in several processes has to agree upon; in a single process nothing of it does anything.

Everything here is called by all processes, in the same order.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nets.errors import UserError
from utils.devices import choose_devices
from utils.evaluation.metrics import ConfusionMatrix
from utils.processes import is_launched

# A process that fails ends the others at once; this is how long the first may measure a large data set alone.
PATIENCE = timedelta(hours=3)


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return dist.get_rank() if _together() else 0


def leads() -> bool:
    """Return whether this process is the first, which alone prints, draws and writes."""
    return rank() == 0


def join(options: argparse.Namespace) -> list[torch.device]:
    """Return the devices of this process, after it has met the others that its launcher started.

    Raises:
        UserError: fewer GPUs than processes on this machine, or a launcher beside DataParallel.
    """
    devices = choose_devices(options)
    if not is_launched():
        return devices if options.PARALLEL == "dp" else devices[:1]
    if options.PARALLEL == "dp":
        raise UserError("--PARALLEL dp is one process; start it without torchrun, or use ddp or fsdp")
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
    return [device]


def leave() -> None:
    """Wait for the others and part."""
    if _together():
        _meet()
        dist.destroy_process_group()


@contextmanager
def first_before_the_others() -> Iterator[None]:
    """Let the first process do something, and then the others, which find what it has written."""
    if not leads():
        _meet()
    yield
    if leads():
        _meet()


def agree(text: str) -> str:
    """Return the text of the first process."""
    if count() == 1:
        return text
    content = torch.zeros(4096, dtype=torch.uint8)
    encoded = text.encode()
    if leads():
        content[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return bytes(content.tolist()).rstrip(b"\0").decode()


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes, without a gradient."""
    values = values.detach().clone()
    if count() > 1:
        dist.all_reduce(values)
    return values


def merged(confusion: ConfusionMatrix, losses: dict[str, float]) -> tuple[ConfusionMatrix, dict[str, float]]:
    """Return confusion matrix and losses of the whole validation split from those of each process's share."""
    if count() == 1:
        return confusion, losses
    pixels = float(confusion.matrix.sum())
    sums = [value * pixels if pixels else 0.0 for value in losses.values()]
    shared = total(torch.tensor([pixels, *sums], dtype=torch.float64)).tolist()
    means = [value / shared[0] if shared[0] else float("nan") for value in shared[1:]]
    whole = ConfusionMatrix(confusion.num_classes)
    whole.matrix = total(confusion.matrix.cpu())
    return whole, dict(zip(losses, means, strict=True))


def average_buffers(network: nn.Module) -> None:
    """Put the mean over the processes into the running statistics of batch norms and their like."""
    if count() == 1:
        return
    own = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    mean = total(torch.cat([buffer.detach().flatten().double() for buffer in own])) / count()
    for buffer, part in zip(own, mean.split([buffer.numel() for buffer in own]), strict=True):
        buffer.copy_(part.view_as(buffer))


def everyones(tensor: Tensor) -> list[Tensor]:
    """Return the tensor of each process, all of one size."""
    if count() == 1:
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(tensors, tensor)
    return tensors


def random_states(device: torch.device) -> dict[str, Tensor | list[Tensor]]:
    """Return the states of the random generators: of this process, and of the others beside it."""
    on_gpu = device.type == "cuda"
    first, *others = everyones(torch.get_rng_state())
    if count() == 1:
        return {"cpu": first, "cuda": torch.cuda.get_rng_state_all() if on_gpu else []}
    cuda = everyones(torch.cuda.get_rng_state(device)) if on_gpu else []
    return {"cpu": first, "cuda": cuda, "others": others}


def restore_random_states(device: torch.device, states: dict[str, Tensor | list[Tensor]]) -> None:
    """Set the random generators as they were; a process that there was not keeps its own."""
    cpu = [states["cpu"], *states.get("others", [])]
    if rank() < len(cpu):
        torch.set_rng_state(cpu[rank()])
    if device.type == "cuda" and states["cuda"]:
        if count() == 1:
            torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
        elif rank() < len(states["cuda"]):
            torch.cuda.set_rng_state(states["cuda"][rank()], device)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def _meet() -> None:
    total(torch.zeros(()))
