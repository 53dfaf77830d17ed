"""Samples as arrays, batches as tensors, and the order in which training sees them.

Every random choice follows from (seed, epoch, position): it depends neither on the number of workers nor on
what was drawn before, so a resumed run sees what an uninterrupted one sees.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.data.geometry import Plan, warp_mask
from utils.data.kept import KeptSamples
from utils.data.labels import IGNORE, Classes
from utils.data.masks import MaskWindows, read_mask
from utils.data.mixing import Crop, cut_out, draw_patches, join
from utils.data.rare_classes import RareClassSampling
from utils.data.raster import Window
from utils.data.samples import Sample, draw_view, view_around
from utils.data.source import read_source
from utils.data.transforms import Augmentation
from utils.data.window import slices

# torch computes with few unsigned types; the signed one above holds all their values.
_SIGNED = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
# Places that are tried for a crop without one class nearly everywhere, as in MMSegmentation.
_PLACES = 10


class Key(NamedTuple):
    """One training draw: the epoch, the position in its order, and the sample."""

    epoch: int
    position: int
    index: int


class SegmentationDataset(Dataset):
    """Images with their masks.

    Args:
        samples: The files.
        classes: Meaning of the label values.
        augmentation: None returns whole images for an int index; otherwise crops for a `Key`.
        seed: Start of every random choice.
        rare_classes: Chooses image and place of every crop, instead of the key's index.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Classes,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rare_classes: RareClassSampling | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        self.augmentation = augmentation
        self.seed = seed
        self.rare_classes = rare_classes
        self._kept = KeptSamples(classes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Key) -> dict[str, np.ndarray | str]:
        """Return "image" (C, H, W), "valid" (H, W), "mask" (H, W) where there is a label, and "name"."""
        if self.augmentation is None:
            sample = self.samples[key]
            image, valid, mask = self._read(sample, None)
            # In another order of memory, which a batch would keep, networks round differently.
            image = np.ascontiguousarray(image)
        else:
            sample, (image, valid, mask) = self._draw(Key(*key))
        item = {"image": image, "valid": valid, "name": sample.name}
        return item if sample.label is None else {**item, "mask": mask}

    def _draw(self, key: Key) -> tuple[Sample, Crop]:
        """Return the sample of a key and its crop, mixed with others where the level says so."""
        rng = np.random.default_rng((self.seed, key.epoch, key.position))
        augmentation, index, class_id = self.augmentation, key.index, None
        if self.rare_classes is not None:
            class_id, index = self.rare_classes.draw(rng)
        patches = draw_patches(rng, augmentation.crop_size, augmentation.level)
        first = self.samples[index] if class_id is None else self.rare_classes.samples[index]
        crops = [self._crop(rng, first, patches[0], None if class_id is None else (index, class_id))]
        for patch in patches[1:]:
            crops.append(self._crop(rng, self.samples[rng.integers(len(self.samples))], patch))
        crop = join(crops, patches, augmentation.crop_size)
        cut_out(crop, augmentation.level, augmentation.ranges.means(len(crop.image)), rng)
        return first, crop

    def _crop(
        self, rng: np.random.Generator, sample: Sample, patch: Window, rare: tuple[int, int] | None = None
    ) -> Crop:
        """Return a crop of a sample of a patch's size.

        Args:
            rng: Source of the draws.
            sample: A tile, or a scene in which the crop is placed where labels are.
            patch: The place of the result.
            rare: Index among the rare classes' samples, and a class of which the crop shall hold a pixel.
        """
        augmentation = self.augmentation
        if rare is None:
            sample, positions = draw_view(sample, rng)
        else:
            positions = self.rare_classes.positions(*rare, MaskWindows(sample, self.classes))
            if sample.avoid and positions is not None:
                sample, positions = view_around(sample, positions[rng.integers(len(positions))])
        kept = self._kept.whole(sample)
        masks = MaskWindows(sample, self.classes, None if kept is None else kept[2])
        plans = augmentation.plans(rng, sample.height, sample.width, patch[2:], positions)
        plan, mask = next(plans), None
        if rare is not None:
            mask = masks[plan.window]
        if augmentation.level.cat_max_ratio < 1 and sample.label is not None:
            plan, mask = _mixed_plan(plan, plans, masks, augmentation.level.cat_max_ratio)
        if kept is not None:
            rows, columns = slices(plan.window)
            # A copy: what is kept stays as it is.
            image, valid, mask = (array[..., rows, columns].copy("K") for array in kept)
            return augmentation.apply(plan, image, valid, np.where(valid, mask, IGNORE), rng)
        return augmentation.apply(plan, *self._read(sample, plan.window, mask), rng)

    def _read(
        self, sample: Sample, window: Window | None, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, valid and mask of a window; a `mask` that is already read is not read again."""
        image, valid = read_source(sample.source, sample.inside(window))
        if mask is None:
            return image, valid, read_mask(sample, self.classes, window, valid)
        return image, valid, mask if valid.all() else np.where(valid, mask, IGNORE)


def _mixed_plan(
    plan: Plan, plans: Iterator[Plan], masks: MaskWindows, most: float
) -> tuple[Plan, np.ndarray]:
    """Return the first of ten plans, or the last, whose crop is not more than `most` of one class."""
    for attempt in range(1, _PLACES + 1):
        mask = masks[plan.window]
        crop = warp_mask(plan, mask)
        # The first count is of the pixels that are ignored.
        counts = torch.bincount(torch.from_numpy(crop).flatten() - IGNORE)[1:].numpy()
        if counts.any() and counts.max() <= most * counts.sum():
            break
        only_place = plan.rotation is None and plan.window == (0, 0, *masks.size)
        if only_place or attempt == _PLACES:
            break
        plan = next(plans)
    return plan, mask


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
    """Move a batch: images (B, C, H, W) float32, NaN where not valid; masks (B, H, W) int64, None without."""
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
