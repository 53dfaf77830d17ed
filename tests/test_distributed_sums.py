"""Two processes with half the batch each have the gradients of one process with the whole batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from nets.layers import points
from utils.loss_terms import EXTRA, PER_PIXEL
from utils.training import matcher
from utils.training.criterion import Criterion, ExtraLosses
from utils.training.distributed_sums import reduce_sum
from utils.training.focal_mask_loss import FocalMaskCriterion
from utils.training.mask_loss import MaskCriterion

K, Q, WEIGHTS = 3, 5, [0.5, 2.0, 1.0]
OF_SEVERAL = {"near_edges": "edges,logits", "points": "point_logits,points"}
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")


class Network(nn.Module):
    """Everything that a loss can ask for, in float64 and without batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pixels = nn.Conv2d(2, K, 3, padding=1)
        self.queries = nn.Conv2d(2, Q, 3, padding=1)
        self.classes = nn.Linear(Q, Q * (K + 1))
        self.double()

    def forward(self, images):
        logits, masks = self.pixels(images), self.queries(images)
        classes = self.classes(masks.mean((2, 3))).unflatten(1, (Q, K + 1))
        return {
            "logits": logits,
            "aux": [logits.roll(1, 1)],
            "class_presence": logits.mean((2, 3)),
            "detail": logits[:, :2],
            "edges": logits[:, 1:2],
            "point_logits": logits.flatten(2)[:, :, ::7],
            "points": same_points(len(images), 18, images),
            "mask_logits": [F.avg_pool2d(masks, 2), masks],
            "class_logits": [classes, -classes],
        }


def criteria() -> dict[str, nn.Module]:
    criteria = {text: Criterion(text, WEIGHTS) for text in (*PER_PIXEL, "ce+dice:0.5", "ohem(kept=20)")}
    zero = Criterion("ce", WEIGHTS)
    criteria |= {
        text: ExtraLosses(zero, {OF_SEVERAL.get(text, text): text}) for text in EXTRA if text not in PER_PIXEL
    }
    criteria["mask"] = MaskCriterion(WEIGHTS, points=40)
    criteria["mask_focal"] = FocalMaskCriterion(WEIGHTS)
    return {name: criterion.double() for name, criterion in criteria.items()}


def scene(case: str):
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, 2, 12, 10, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, K, (4, 3, 5), generator=generator)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(2, 2)
    # The halves differ in their valid pixels and classes, or one has nothing valid at all.
    masks[0, :7] = -1
    masks[2:][masks[2:] == 1] = 2
    if case == "half is ignored":
        masks[2:] = -1
    return images, masks


def same_points(rows, count, like, generator=None):
    """Stand for `random_points`, which each process draws for itself: one grid for all masks."""
    drawn = torch.rand(1, count, 2, generator=torch.Generator().manual_seed(count), dtype=like.dtype)
    return drawn.expand(rows, -1, -1)


def gradients(network: nn.Module, part: slice) -> dict[str, tuple[float, list[torch.Tensor]]]:
    """Return the loss and the gradients of every criterion and case."""
    points.random_points = matcher.random_points = same_points
    found = {}
    for case in ("halves differ", "half is ignored"):
        images, masks = (x[part] for x in scene(case))
        for name, criterion in criteria().items():
            network.zero_grad(set_to_none=True)
            total, _ = criterion(network(images), masks)
            # What a loss does not use has a gradient of 0, which DistributedDataParallel waits for.
            unused = sum(0 * parameter.sum() for parameter in network.parameters())
            (total + unused).backward()
            found[f"{name}, {case}"] = (total.item(), [p.grad.clone() for p in network.parameters()])
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    network = DistributedDataParallel(Network())
    found = gradients(network, slice(2 * rank, 2 * rank + 2))
    with torch.no_grad():  # nothing is summed in a validation: processes may see unequal numbers of batches
        assert reduce_sum(torch.ones(()) * rank) == rank
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path, monkeypatch):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    monkeypatch.setattr(points, "random_points", None)
    monkeypatch.setattr(matcher, "random_points", None)  # so that what `gradients` puts there goes again
    whole = gradients(Network(), slice(None))
    for rank in range(2):
        halves = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert halves.keys() == whole.keys()
        for name, (loss, expected) in whole.items():
            assert halves[name][0] == pytest.approx(loss, rel=1e-10), name
            for own, wanted in zip(halves[name][1], expected, strict=True):
                torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-12, msg=name)
    assert all(loss > 0 for loss, _ in whole.values())


def test_one_process_sums_alone():
    value = torch.ones(3, requires_grad=True)
    assert reduce_sum(value) is value
