"""Losses of several labels: of one they are those of two classes, of more their mean over classes."""

import pytest
import torch
import torch.nn.functional as F

from nets import create_model
from nets.errors import UserError
from utils.data.labels import IGNORE
from utils.loss_terms import EXTRA, PER_PIXEL, parse_loss
from utils.training.accumulate import Parts
from utils.training.criterion import Criterion, check_loss
from utils.training.edge_losses import detail_edges, edge_map
from utils.training.losses import LOSSES
from utils.training.precision import Precision

K = 3
WEIGHTS = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
REGIONS = ("dice", "tversky", "lovasz", "boundary")
EVERY = pytest.mark.parametrize("text", [*PER_PIXEL, "class_presence", "ce(label_smoothing=0.1)"])


def loss_of(text: str):
    (term,) = parse_loss(text, EXTRA)
    return lambda *given: LOSSES[term.name](*given, **term.parameters)


def batch(text: str = "ce", dtype=torch.float64):
    """Return an output that needs a gradient and masks (3, K, 7, 6) of blocks, ignored class by class."""
    generator = torch.Generator().manual_seed(2)
    shape = (3, K) if text == "class_presence" else (3, K, 7, 6)
    output = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
    masks = (torch.rand(3, K, 3, 2, generator=generator) < 0.4).long()
    masks = masks.repeat_interleave(3, 2).repeat_interleave(3, 3)[:, :, :7]
    masks[torch.rand(masks.shape, generator=generator) < 0.15] = IGNORE
    masks[1, :, :4, :2] = IGNORE
    return output, masks


def two_classes(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


@pytest.mark.parametrize("text", [*PER_PIXEL, "ce(label_smoothing=0.1)", "ohem(threshold=0,kept=5)"])
def test_one_label_is_two_classes(text):
    output, masks = batch()
    output, masks = output[:, :1], masks[:, :1]
    weights = torch.tensor([0.0, 1.0]).double() if text in REGIONS else None
    expected = loss_of(text)(two_classes(output), masks[:, 0], weights)
    torch.testing.assert_close(loss_of(text)(output, masks), expected)
    assert expected > 0.1


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_cross_entropy_is_the_binary_one(weights):
    output, masks = batch()
    each = torch.ones(K).double() if weights is None else weights
    each = each[:, None, None] * (masks != IGNORE)
    expected = F.binary_cross_entropy_with_logits(output, masks.clamp(min=0).double(), each, reduction="sum")
    torch.testing.assert_close(loss_of("ce")(output, masks, weights), expected / each.sum())


@pytest.mark.parametrize("text", ["dice", "tversky"])
def test_regions_are_the_mean_over_classes(text):
    output, masks = batch()
    alone = torch.stack([loss_of(text)(output[:, [k]], masks[:, [k]]) for k in range(K)])
    torch.testing.assert_close(loss_of(text)(output, masks), alone.mean())
    expected = (alone * WEIGHTS).sum() / WEIGHTS.sum()
    torch.testing.assert_close(loss_of(text)(output, masks, WEIGHTS), expected)


@EVERY
def test_every_loss(text):
    loss = loss_of(text)
    output, masks = batch(text, torch.float32)
    value = loss(output, masks, WEIGHTS)
    gradient = torch.autograd.grad(value, output)[0]
    assert value > 0 and gradient[:, :2].abs().sum() > 0 and gradient[:, 2].abs().sum() == 0
    if text != "class_presence":
        assert (gradient[masks == IGNORE] == 0).all(), "ignored class by class"
    empty = loss(output, torch.full_like(masks, IGNORE), WEIGHTS)
    assert empty == 0 and (torch.autograd.grad(empty, output)[0] == 0).all()
    best = 1000.0 * (2 * masks.clamp(min=0) - 1)
    best = best.flatten(2).amax(2) if text == "class_presence" else best
    assert loss(best, masks, WEIGHTS) == 0 or "smoothing" in text
    low = (output.detach() * 1e4).bfloat16().requires_grad_()
    wide = loss(low, masks, WEIGHTS)
    assert wide.dtype == torch.float32 and torch.autograd.grad(wide, low)[0].isfinite().all()


@pytest.mark.parametrize("find", [detail_edges, lambda masks: edge_map(masks, 3)], ids=["detail", "edges"])
def test_edges_of_several_labels_are_those_of_each(find):
    _, masks = batch()
    masks = F.interpolate(masks.float(), scale_factor=4).long()
    expected = torch.stack([find(masks[:, k]) for k in range(K)]).any(0)
    assert torch.equal(find(masks), expected) and 0 < expected.sum() < expected.numel()
    edge_logits, logits = torch.randn(3, 1, 28, 24), torch.randn(3, K, 28, 24)
    near = loss_of("near_edges(sure=0.6)")([edge_logits, logits], masks)
    far = masks.masked_fill(edge_logits.sigmoid() <= 0.6, IGNORE)
    assert near == loss_of("ohem(threshold=0.7)")(logits, far) > 0
    assert loss_of("edges")(edge_logits, masks) > 0 and loss_of("detail")(edge_logits, masks) > 0


class Point(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(2, K, 1, dtype=torch.float64)

    def forward(self, images):
        return {"logits": super().forward(images)}


@pytest.mark.parametrize("text", ["ce+focal:0.5", "ce+dice:0.5"])
def test_parts_of_a_batch_are_the_batch(text):
    generator = torch.Generator().manual_seed(0)
    model = Point()
    images, (_, masks) = torch.randn(3, 2, 7, 6, generator=generator, dtype=torch.float64), batch()
    criterion = Criterion(text, [0.5, 2.0, 1.0])
    found = []
    for pieces in ([(images, masks)], [(images[:1], masks[:1]), (images[1:], masks[1:])]):
        model.zero_grad()
        parts = Parts(model, criterion, pieces, Precision(), weighted="dice" not in text)
        for part, truth in parts:
            parts.criterion(model(part), truth)[0].backward()
        found.append(model.weight.grad.clone())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


def test_networks_of_several_labels():
    plain = {"bands": 2, "num_classes": K, "backbone": "resnet18"}
    network = create_model("fcn", task="multilabel", **plain).eval()
    options = network.blueprint["options"]
    again = create_model("fcn", **options)
    assert network.task == again.task == options["task"] == "multilabel"
    logits = 3 * torch.randn(1, K, 4, 4).half()
    scores = network.probabilities({"logits": logits})
    assert scores.dtype == torch.float32 and torch.equal(scores, logits.float().sigmoid())
    assert "task" not in create_model("fcn", **plain).blueprint["options"]
    with pytest.raises(UserError, match="task multilabel is given; mask2former is for multiclass alone"):
        create_model("mask2former", task="multilabel", **plain)
    with pytest.raises(UserError, match=r"mask2former gives one class to each mask.*--TASK multilabel"):
        check_loss("mask", "mask2former", "mask", task="multilabel")
