"""How many decoded images a run keeps in memory, and why."""

import argparse
import os

from utils.data.kept import KeptSamples, shared_with_workers
from utils.data.layout import DatasetInfo
from utils.data.loaders import default_workers
from utils.distributed import count
from utils.host_memory import free_memory

GIB = 2**30
# Of the memory that is free at the start: other programs, and the system's cache of files, want some too.
SHARE = 4
# A first pass takes longer, for whole images are decoded; at 2048 x 1024 the fourth one makes up for it.
FEWEST_PASSES = 4
UNKNOWN = GIB  # where the system does not say what is free


def kept_samples(
    options: argparse.Namespace, data: DatasetInfo, device_type: str, passes: float
) -> tuple[KeptSamples | None, tuple[str, str, str]]:
    """Return what keeps the training images in memory, and the decision in words.

    Args:
        options: flags of the run.
        data: the checked data set.
        device_type: "cpu" or another.
        passes: over the training images in the run.
    """
    room, reason = _room(options)
    if passes <= 1 or (options.KEEP_DECODED is None and passes < FEWEST_PASSES):
        return None, ("decoded_images", "not kept", f"worth it from {FEWEST_PASSES} epochs on")
    if not room:
        return None, ("decoded_images", "not kept", reason)
    workers = default_workers(device_type, count()) if options.NUM_WORKERS is None else options.NUM_WORKERS
    room //= int(os.environ.get("LOCAL_WORLD_SIZE", count()))
    if not shared_with_workers():
        room //= max(1, workers)
    try:
        kept = KeptSamples(data.splits["train"], data.classes, data.bands, data.dtype, room)
    except OSError as error:  # a limit of address space, which the system's figures do not show
        return None, ("decoded_images", "not kept", f"the system refuses the memory: {error.strerror}")
    if not kept.places:
        size = "scenes are read by window" if not kept.wanted else f"none fits into {room / GIB:.2f} GiB"
        return None, ("decoded_images", "not kept", size)
    which = "all" if len(kept.places) == kept.wanted else f"{len(kept.places)} of {kept.wanted}"
    return kept, ("decoded_images", f"{which} kept in memory, {kept.nbytes / GIB:.2f} GiB", reason)


def _room(options: argparse.Namespace) -> tuple[int, str]:
    """Return how many bytes all processes of this machine may take together, and why."""
    if options.KEEP_DECODED is not None:
        return int(options.KEEP_DECODED * GIB), "--KEEP_DECODED"
    free = free_memory()
    if free is None:
        return UNKNOWN, f"at most {UNKNOWN // GIB} GiB; --KEEP_DECODED"
    return free // SHARE, f"at most a quarter of the {free / GIB:.1f} GiB that are free; --KEEP_DECODED"
