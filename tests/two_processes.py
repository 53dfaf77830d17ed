"""What tests/test_distributed.py runs in two processes: every part of a batch is one process's work."""

import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from nets.segmentation_model import SegmentationNetwork
from utils.checkpoint import network_state, whole
from utils.distributed import agree, count, gathered, leads, rank, total
from utils.loss_terms import PER_PIXEL
from utils.training.criterion import Criterion
from utils.training.distributed import average_buffers
from utils.training.distributed_sums import reduce_sum
from utils.training.parallel import distribute, load_optimizer

CLASSES, SIDE = 4, 24
SEVERAL = "several "
LOSSES = (*PER_PIXEL, *(SEVERAL + loss for loss in PER_PIXEL))
CPU = torch.device("cpu")


class Small(SegmentationNetwork):
    """Two convolutions with a batch norm, an auxiliary output, and a parameter that nothing depends on."""

    def __init__(self):
        super().__init__(3, CLASSES)
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier, self.aux = nn.Conv2d(8, CLASSES, 1), nn.Conv2d(8, CLASSES, 1)
        self.unused = nn.Parameter(torch.zeros(3))

    def train(self, mode: bool = True) -> "Small":
        super().train(mode)
        self.stem[1].eval()  # frozen
        return self

    def forward(self, images):
        features = self.stem(images)
        return {"logits": self.classifier(features), "aux": [self.aux(features)]}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images whose halves differ in their valid pixels and classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    masks = torch.randint(CLASSES, (4, SIDE, SIDE), generator=generator)
    masks[:2, : SIDE - 4] = -1
    masks[2:] = masks[2:].clamp(max=1)
    return images, masks


def several(masks: torch.Tensor) -> torch.Tensor:
    """Return masks (B, K, H, W) in which each pixel has its class and the next one."""
    classes = torch.arange(CLASSES)[:, None, None]
    present = (masks[:, None] == classes) | (masks[:, None] + 1 == classes)
    return present.long().masked_fill(masks[:, None] < 0, -1)


def gradients(loss: str, part: slice, parallel: str) -> tuple[dict, float]:
    """Return the gradients of a part of the batch, and the loss; "several ce" is ce of several labels."""
    criterion = Criterion(loss.removeprefix(SEVERAL), [0.5, 2.0, 1.0, 0.1]).double()
    network = Small().double()
    model = distribute(network, [CPU], parallel, criterion).train()
    images, masks = batch()
    masks = several(masks) if loss.startswith(SEVERAL) else masks
    total_loss, main = criterion(model(images[part]), masks[part])
    total_loss.backward()
    grads = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {name: grad for name, grad in whole(grads).items() if grad is not None}, main.item()


def steps(part: slice, parallel: str) -> tuple[dict, dict]:
    """Return weights and optimiser state after two steps, with the optimiser saved and loaded in between."""
    criterion = Criterion("ce").double()
    network = Small().double()
    model = distribute(network, [CPU], parallel, criterion).train()
    images, masks = batch()
    state = None
    for _ in range(2):
        optimizer = torch.optim.AdamW(network.parameters(), 0.01)
        if state is not None:
            load_optimizer(optimizer, state)
        criterion(model(images[part]), masks[part])[0].backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        state = whole(optimizer.state_dict())
    return network_state(model), state


def main(folder: Path) -> None:
    """Write what this process has found to `folder`."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(sys.argv[2]), world_size=2
    )
    part = slice(2 * rank(), 2 * rank() + 2)
    found = {"count": count(), "leads": leads(), "agreed": agree(f"é{rank()}")}
    found["gathered"] = gathered("é" * rank())
    for loss in LOSSES:
        found[loss] = gradients(loss, part, "ddp")
    found["fsdp"] = gradients("ce", part, "fsdp")
    found["steps"] = {parallel: steps(part, parallel) for parallel in ("ddp", "fsdp")}
    norm = nn.BatchNorm2d(2)
    norm.running_mean += rank()
    average_buffers(norm)
    found["averaged"] = norm.running_mean
    found["total"] = total(torch.tensor([rank() + 1]))
    with torch.no_grad():
        found["validation"] = reduce_sum(torch.tensor(1.0 + rank()))
    torch.save(found, folder / f"{rank()}.pth")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
