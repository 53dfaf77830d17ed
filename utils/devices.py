"""Which devices a program uses."""

import argparse

import torch
from torch import nn

from nets.errors import UserError

# Images or windows that a device predicts at a time.
USUAL_BATCH = 4


def choose_devices(options: argparse.Namespace) -> list[torch.device]:
    """Return the devices that MODE, GPU_ID, GPU_LIST and USE_CPU ask for, the first one leading.

    Raises:
        UserError: a GPU that does not exist.
    """
    present = torch.cuda.device_count()
    if not present and torch.backends.mps.is_available() and not options.USE_CPU and not options.GPU_ID:
        return [torch.device("mps")]  # Apple's machines have one
    asked = _asked_gpus(options, present)
    missing = [gpu for gpu in asked if gpu >= present]
    if missing and not options.USE_CPU:
        have = f"GPUs 0..{present - 1} exist" if present else "PyTorch sees no GPU here"
        raise UserError(f"GPU {missing[0]} was asked for; {have}; choose another or use --USE_CPU")
    if options.USE_CPU or not present:
        return [torch.device("cpu")]
    return [torch.device("cuda", gpu) for gpu in asked]


def _asked_gpus(options: argparse.Namespace, present: int) -> list[int]:
    if options.GPU_LIST is not None and (options.MODE != "single" or options.GPU_ID is None):
        try:
            gpus = [int(part) for part in options.GPU_LIST.split(",")]
        except ValueError:
            gpus = []
        if not gpus or min(gpus) < 0 or len(set(gpus)) < len(gpus):
            raise UserError(
                f'--GPU_LIST {options.GPU_LIST!r} is given; different numbers as in "0,1" are wanted'
            )
        return gpus[:1] if options.MODE == "single" else gpus
    if options.GPU_ID is not None:
        return [options.GPU_ID]
    return [0][:present] if options.MODE == "single" else list(range(present))


def describe(devices: list[torch.device], processes: int = 1) -> str:
    """Return the devices of this process in words, and how many processes share the work."""
    if processes > 1:
        return f"{processes} processes, this one on {describe(devices)}"
    if devices[0].type == "mps":
        return "Apple GPU"
    if devices[0].type != "cuda":
        reason = "" if torch.cuda.is_available() else ", no GPU was found"
        return f"CPU ({torch.get_num_threads()} threads{reason})"
    return ", ".join(f"GPU {d.index} ({torch.cuda.get_device_name(d)})" for d in devices)


def check_batch(batch_size: int, count: int, what: str = "GPUs") -> None:
    """Refuse a total batch that `count` devices, or whatever they are, cannot share evenly."""
    if batch_size % count:
        lower, upper = batch_size // count * count, (batch_size // count + 1) * count
        nearest = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(
            f"--BATCH_SIZE {batch_size} does not divide by {count} {what}; nearest that do: {nearest}"
        )


def batch_of_each(batch_size: int | None, count: int, what: str = "GPUs") -> int:
    """Return the share that each of `count` devices has of a total batch; None is `USUAL_BATCH` for each.

    Raises:
        UserError: they cannot share it evenly.
    """
    if batch_size is None:
        return USUAL_BATCH
    check_batch(batch_size, count, what)
    return batch_size // count


def place(network: nn.Module, devices: list[torch.device]) -> nn.Module:
    """Return the network on its device, in `nn.DataParallel` where there are several."""
    network = network.to(devices[0])
    if len(devices) > 1:
        return nn.DataParallel(network, device_ids=[device.index for device in devices])
    return network


def place_for_prediction(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network on its device, its weights in the memory format in which it predicts fastest.

    On the CPU that is channels last: oneDNN's convolutions put every map in that order otherwise. Two
    thirds of the families take 5 to 32 % less time with it, the others about the same
    (benchmarks/results/memory_format.csv). 1x1 convolutions gain nothing and are left as they are.
    """
    network = network.to(device)
    if device.type == "cpu":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and max(layer.kernel_size) > 1:
                layer.to(memory_format=torch.channels_last)
    return network


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside a DataParallel or DistributedDataParallel wrapper, else itself."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return network.module if isinstance(network, wrappers) else network
