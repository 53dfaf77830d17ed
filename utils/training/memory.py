"""When a GPU's memory is not enough: what the run needed, and what to try."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nets.errors import UserError

GIB = 2**30


@contextmanager
def advice_on_memory(
    options: argparse.Namespace, crop: tuple[int, int], device: torch.device, accumulate: int = 1
) -> Iterator[None]:
    """Say in one line what to try when the device's memory is not enough for what happens inside.

    Args:
        options: flags of the run.
        crop: training crop (height, width) in pixels.
        device: where the memory is not enough.
        accumulate: batches per step.

    Raises:
        UserError: it was not enough.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{_needed(options, crop, device)}; try {', '.join(_ways_out(options, accumulate))}"
        ) from error


def _needed(options: argparse.Namespace, crop: tuple[int, int], device: torch.device) -> str:
    what = f"--BATCH_SIZE {options.BATCH_SIZE} with crops of {crop[0]}x{crop[1]}"
    if device.type != "cuda":
        return f"the memory of {device} is not enough for {what}"
    used = torch.cuda.max_memory_allocated(device) / GIB
    whole = torch.cuda.get_device_properties(device).total_memory / GIB
    return f"GPU {device.index} has {whole:.1f} GiB, and {what} needed more than {used:.1f} GiB"


def _ways_out(options: argparse.Namespace, accumulate: int) -> list[str]:
    """Return what makes a run smaller and is not in use yet, the most harmless first."""
    half, ways = options.BATCH_SIZE // 2, []
    if options.AMP == "off":
        ways.append("--AMP auto")
    if half:
        ways.append(f"--BATCH_SIZE {half} --ACCUMULATE {2 * accumulate}")
    if not options.GRAD_CHECKPOINT:
        ways.append("--GRAD_CHECKPOINT")
    if options.PARALLEL != "fsdp":
        ways.append("--PARALLEL fsdp on several GPUs")
    return [*ways, "a smaller --CROP_SIZE"]
