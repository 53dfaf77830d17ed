"""What training in several processes has to agree upon; in a single process nothing of it does anything.

Everything here is called by all processes, in the same order.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.errors import UserError
from utils import distributed
from utils.devices import choose_devices
from utils.distributed import count, everyones, rank, total
from utils.evaluation.metrics import ConfusionMatrix
from utils.processes import is_launched


def join(options: argparse.Namespace) -> list[torch.device]:
    """Return the devices of this process, after it has met the others that its launcher started.

    Raises:
        UserError: fewer GPUs than processes on this machine, or a launcher beside DataParallel.
    """
    if options.PARALLEL != "dp":
        return [distributed.join(options)]
    if is_launched():
        raise UserError("--PARALLEL dp is one process; start it without torchrun, or use ddp or fsdp")
    return choose_devices(options)


def merged(confusion: ConfusionMatrix, losses: dict[str, float]) -> tuple[ConfusionMatrix, dict[str, float]]:
    """Return confusion matrix and losses of the whole validation split from those of each process's share."""
    if count() == 1:
        return confusion, losses
    pixels = float(confusion.matrix.sum())
    sums = [value * pixels if pixels else 0.0 for value in losses.values()]
    shared = total(torch.tensor([pixels, *sums], dtype=torch.float64)).tolist()
    means = [value / shared[0] if shared[0] else float("nan") for value in shared[1:]]
    whole = ConfusionMatrix.of(total(confusion.matrix.cpu()))
    return whole, dict(zip(losses, means, strict=True))


def average_buffers(network: nn.Module) -> None:
    """Put the mean over the processes into the running statistics of batch norms and their like."""
    if count() == 1:
        return
    own = _running([network])
    mean = total(torch.cat([buffer.flatten().double() for buffer in own])) / count()
    for buffer, part in zip(own, mean.split([buffer.numel() for buffer in own]), strict=True):
        buffer.copy_(part.view_as(buffer))


def others_buffers(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Return the running statistics of each process but the first, which go apart between validations."""
    return everyones(torch.cat([buffer.flatten() for buffer in _running(networks)]).cpu())[1:]


def restore_buffers(networks: Sequence[nn.Module], others: Sequence[Tensor]) -> None:
    """Set the running statistics as they were in this process; one that there was not keeps the first's."""
    if 0 < rank() <= len(others):
        own = _running(networks)
        for buffer, part in zip(own, others[rank() - 1].split([each.numel() for each in own]), strict=True):
            buffer.copy_(part.view_as(buffer))


def _running(networks: Sequence[nn.Module]) -> list[Tensor]:
    buffers = [buffer.detach() for network in networks for buffer in network.buffers()]
    return [buffer for buffer in buffers if buffer.is_floating_point()]


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
