"""What a network could reach at best on given images: free logits on its output grid."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nets.layers.resize import resize
from nets.models.segmenter import MaskTransformer
from nets.segmentation_model import SegmentationNetwork
from utils.data.dataset import SegmentationDataset
from utils.data.layout import DatasetInfo
from utils.data.loaders import TrainingSampler, collate, to_device
from utils.evaluation.metrics import ConfusionMatrix
from utils.training.pixel_losses import cross_entropy

BATCH = 4
CEILING_STEPS, CEILING_RATE = 300, 1.0


class Images:
    """Whole images that lie evenly spread over the training list, read once."""

    def __init__(self, data: DatasetInfo, count: int):
        train = data.splits["train"]
        chosen = [train[i * len(train) // count] for i in range(count)]
        dataset = SegmentationDataset(chosen, data.classes)
        self.items = [dataset[i] for i in range(count)]
        self.num_classes, self.bands = data.classes.num_classes, data.bands

    def all_batches(self) -> list[dict]:
        """Return every image once."""
        return [collate(self.items[i : i + BATCH]) for i in range(0, len(self.items), BATCH)]

    def shuffled_batches(self) -> Iterator[dict]:
        """Yield batches without end, in a new order each time all were seen."""
        sampler = TrainingSampler(len(self.items), BATCH)
        for epoch in itertools.count():
            for keys in sampler.batches(epoch):
                yield collate([self.items[key.index] for key in keys])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the images (N, C, H, W) and the masks (N, H, W)."""
        return to_device(collate(self.items), "cpu")


def output_grid(network: SegmentationNetwork, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the logits, or of the masks, before they are resized."""
    sizes = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[-2:])))
        for module in network.modules()
        if _classifies(module, network.num_classes)
    ]
    training, device = network.training, network.mean.device
    with torch.inference_mode():
        outputs = network.eval()(torch.zeros(1, network.bands, height, width, device=device))
    network.train(training)
    for handle in handles:
        handle.remove()
    return tuple(outputs["mask_logits"][-1].shape[-2:]) if "mask_logits" in outputs else sizes[-1]


def ceiling(images: Images, grid: tuple[int, int]) -> float:
    """Return the mIoU that free logits on a grid reach."""
    _, masks = images.tensors()
    if grid == tuple(masks.shape[-2:]):
        return 1.0  # a number for each pixel
    free = torch.zeros(len(masks), images.num_classes, *grid, requires_grad=True)
    optimizer = torch.optim.Adam([free], CEILING_RATE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, CEILING_STEPS)
    for _ in range(CEILING_STEPS):
        loss = cross_entropy(resize(free, masks.shape[-2:]), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    confusion = ConfusionMatrix(images.num_classes)
    confusion.update(resize(free.detach(), masks.shape[-2:]).argmax(1), masks)
    return confusion.compute().mIoU


def _classifies(module: nn.Module, num_classes: int) -> bool:
    """Return whether a module gives scores of all classes for each pixel of a map."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return module.out_channels == num_classes
    return isinstance(module, MaskTransformer)
