"""Batches: their order, how they are put together, and the processes that read them."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.data.dataset import Key, SegmentationDataset

# torch computes with few unsigned types; the signed one above holds all their values.
_SIGNED = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


class TrainingSampler:
    """The order of training: batches of keys, a new permutation per epoch, for `DataLoader(batch_sampler=)`.

    The last short batch is dropped. A set smaller than one batch fills it by repeating its images.

    Args:
        length: Number of samples.
        batch_size: Samples per batch.
        seed: Start of every permutation.
        share: (number of this process, number of processes): it gets its part of every batch.
        parts: Parts in which it gets them, one after the other.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int = 0, share: tuple[int, int] = (0, 1), parts: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        self.parts = parts
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and the batch to start from when a run is resumed."""
        self.epoch = epoch
        self.first_batch = first_batch

    def batches(self, epoch: int) -> list[list[Key]]:
        """Return all parts of the batches of an epoch, of each the share of this process."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        count = self.batches_per_epoch
        order = np.resize(order, count * self.batch_size).tolist()
        keys = [Key(epoch, position, index) for position, index in enumerate(order)]
        rank, processes = self.share
        part = self.batch_size // self.parts
        size = part // processes
        return [keys[start : start + size] for start in range(rank * size, len(keys), part)]

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return max(1, self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches(self.epoch)[self.first_batch * self.parts :])

    def __len__(self) -> int:
        return (self.batches_per_epoch - self.first_batch) * self.parts


def collate(items: Sequence[dict[str, np.ndarray | str]]) -> dict[str, torch.Tensor | list[str]]:
    """Stack items of one size into a batch of tensors; integers that torch lacks become wider ones."""
    batch: dict[str, torch.Tensor | list[str]] = {"name": [item["name"] for item in items]}
    for key in ("image", "valid", "mask"):
        if all(key in item for item in items):
            array = np.stack([item[key] for item in items])
            dtype = _SIGNED.get(array.dtype.name, array.dtype.newbyteorder("="))
            batch[key] = torch.from_numpy(array.astype(dtype, copy=False))
    return batch


def to_device(
    batch: dict[str, torch.Tensor | list[str]], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Move a batch: images (B, C, H, W) float32, NaN where not valid; masks int64, None without."""
    image = batch["image"]
    if image.dtype == torch.float64:
        image = image.float()
    image = image.to(device, non_blocking=True).float()
    valid = batch["valid"].to(device, non_blocking=True)
    images = image.masked_fill(~valid[:, None], float("nan"))
    masks = batch.get("mask")
    return images, None if masks is None else masks.to(device, non_blocking=True).long()


def training_loader(
    dataset: SegmentationDataset,
    sampler: TrainingSampler,
    workers: int,
    *,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> DataLoader:
    """Return a loader of augmented batches; call `sampler.set_epoch` before each pass.

    Args:
        dataset: Has an augmentation.
        sampler: Gives the keys of the batches.
        workers: Processes that read; 0 reads in this process.
        pin_memory: Makes the copy to a GPU asynchronous.
        start_method: How workers start ("fork", "spawn", "forkserver"); None is the system's way.
    """
    return _loader(dataset, sampler, workers, pin_memory, start_method)


def evaluation_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    workers: int,
    *,
    pin_memory: bool = False,
    start_method: str | None = None,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """Return a loader of whole images in their order; only neighbours of one size share a batch.

    Of several processes each gets its `share`, (its number, their count), and maybe one batch less than
    the first.
    """
    batches: list[list[int]] = []
    last_size = None
    for index, sample in enumerate(dataset.samples):
        size = (sample.height, sample.width)
        if size != last_size or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(index)
        last_size = size
    rank, processes = share
    return _loader(dataset, batches[rank::processes], workers, pin_memory, start_method)


def default_workers(device_type: str, sharing: int = 1) -> int:
    """Return how many processes read: on the CPU few, because the network itself needs the processors.

    Args:
        device_type: "cpu" or another.
        sharing: programs among which the processors are divided.
    """
    own = max(1, processors() // sharing)
    return min(2, own // 2) if device_type == "cpu" else max(1, min(8, own - 1))


def processors() -> int:
    """Return how many processors this program may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _loader(
    dataset: SegmentationDataset,
    batches: TrainingSampler | list[list[int]],
    workers: int,
    pin_memory: bool,
    start_method: str | None,
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context=start_method if workers > 0 else None,
        # A generator of its own: otherwise every pass would draw from torch's global random state.
        generator=torch.Generator(),
    )
