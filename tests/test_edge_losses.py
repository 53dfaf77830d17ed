"""Losses of STDC's details and PIDNet's boundaries, against slow loops."""

import math

import pytest
import torch

from utils.loss_terms import EXTRA, parse_loss
from utils.training.criterion import Criterion, ExtraLosses
from utils.training.edge_losses import detail_edges, edge_map
from utils.training.losses import LOSSES
from utils.training.pixel_losses import ohem

SIDE = (11, 13)


def masks_of(*, ignored: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(0, 4, (2, 4, 5), generator=generator)
    masks = masks.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : SIDE[0], : SIDE[1]]
    if ignored:
        masks[0, 2:5, 3:9] = -1
        masks[1, -2:] = -1
    return masks


def logits_of(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, channels, *SIDE, generator=generator, dtype=torch.float64).requires_grad_()


def loss(text: str, *given: object) -> torch.Tensor:
    (term,) = parse_loss(text, EXTRA)
    return LOSSES[term.name](*given, **term.parameters)


def around(image, row: int, column: int):
    """Yield the class of each neighbour, None outside of the image."""
    for i in (row - 1, row, row + 1):
        for j in (column - 1, column, column + 1):
            if (i, j) != (row, column):
                inside = 0 <= i < SIDE[0] and 0 <= j < SIDE[1]
                yield int(image[i, j]) if inside else None


def slow_detail(image) -> list[list[bool]]:
    """Return where the Laplacian of strides 1 and 2 is positive: what stride 4 alone finds is too light."""

    def sharp(row: int, column: int) -> bool:
        own, others = int(image[row, column]), list(around(image, row, column))
        if own == -1 or -1 in others:
            return False
        return 8 * own - sum(other or 0 for other in others) > 0

    def nearest(row: int, column: int, stride: int) -> bool:
        height, width = (-(-side // stride) for side in SIDE)
        return sharp(row * height // SIDE[0] * stride, column * width // SIDE[1] * stride)

    return [[sharp(r, c) or nearest(r, c, 2) for c in range(SIDE[1])] for r in range(SIDE[0])]


@pytest.mark.parametrize("ignored", [False, True])
def test_details_are_where_the_laplacian_is_positive(ignored):
    masks = masks_of(ignored=ignored)
    found = detail_edges(masks)
    assert found.tolist() == [slow_detail(image) for image in masks]
    assert 0.2 < found.float().mean() < 0.9
    # Of two classes the one with the larger number; the border of the image counts for all but class 0.
    halves = torch.tensor([[[0, 0, 0, 1, 1, 1]]]).expand(1, 6, 6)
    assert detail_edges(halves)[0, 3].tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ignored", [False, True])
def test_detail(channels, ignored):
    masks, logits = masks_of(ignored=ignored), logits_of(channels)
    target, p = detail_edges(masks), logits.detach().sigmoid()
    costs, dices = [], []
    for b in range(2):
        products, squares = 0.0, 0.002
        for row, column in torch.nonzero(masks[b] != -1).tolist():
            truth = [float(target[b, row, column])]
            truth = truth if channels == 1 else [1 - truth[0], truth[0]]
            for own, wanted in zip(p[b, :, row, column].tolist(), truth, strict=True):
                costs.append(-math.log(own if wanted else 1 - own))
                products, squares = products + own * wanted, squares + own * own + wanted
        dices.append(1 - 2 * products / squares)
    expected = sum(costs) / len(costs) + sum(dices) / 2
    assert loss("detail", logits, masks).item() == pytest.approx(expected)


def slow_edges(image, width: int) -> list[list[bool]]:
    """Return what a square of side `width` around each marked pixel covers, as OpenCV places it."""
    marked, classes = set(), image.tolist()
    for r in range(SIDE[0]):
        for c in range(SIDE[1]):
            for i, j in ((r - 1, c), (r, c + 1), (r + 1, c + 1), (r + 1, c - 1)):
                inside = 0 <= i < SIDE[0] and 0 <= j < SIDE[1]
                pair = {classes[r][c], classes[i][j]} if inside else set()
                if len(pair) == 2 and -1 not in pair:
                    marked.add((r, c))
    reach = range(-(width // 2), width - width // 2)
    return [
        [any((r + i, c + j) in marked for i in reach for j in reach) for c in range(SIDE[1])]
        for r in range(SIDE[0])
    ]


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("ignored", [False, True])
def test_edges_lie_between_classes(width, ignored):
    masks = masks_of(ignored=ignored)
    assert edge_map(masks, width).tolist() == [slow_edges(image, width) for image in masks]


@pytest.mark.parametrize("ignored", [False, True])
def test_edges_and_the_rest_weigh_the_same(ignored):
    masks, logits = masks_of(ignored=ignored), logits_of(1)
    target, valid = edge_map(masks, 2), masks != -1
    count, of_edges = valid.sum().item(), (target & valid).sum().item()
    p = logits.detach().sigmoid()[:, 0]
    on_edges = -p[target & valid].log().sum().item() * (count - of_edges) / count
    elsewhere = -(1 - p)[~target & valid].log().sum().item() * of_edges / count
    found = loss("edges(width=2)", logits, masks)
    assert found.item() == pytest.approx((on_edges + elsewhere) / count)


def test_near_edges_is_ohem_where_an_edge_is_sure():
    masks, edge_logits, logits = masks_of(ignored=True), 3 * logits_of(1), logits_of(4)
    found = loss("near_edges(sure=0.6,threshold=0.5,kept=0.1)", [edge_logits, logits], masks)
    there = torch.where(edge_logits[:, 0].sigmoid() > 0.6, masks, -1)
    torch.testing.assert_close(found, ohem(logits, there, threshold=0.5, kept=0.1))
    assert torch.autograd.grad(found, edge_logits, allow_unused=True)[0] is None
    weights = torch.tensor([0.1, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert loss("near_edges", [edge_logits, logits], masks, weights) != loss(
        "near_edges", [edge_logits, logits], masks
    )


@pytest.mark.parametrize("text", ["detail", "edges", "near_edges"])
def test_ignored_pixels_and_half_precision(text):
    masks = masks_of(ignored=True)

    def value(output: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        more = [output[:, :1] + 5, output] if text == "near_edges" else output[:, :1]
        return loss(text, more, given)

    output = logits_of(4)
    gradient = torch.autograd.grad(value(output, masks), output)[0]
    assert gradient.abs().sum() > 0 and (gradient.abs().sum(1)[masks == -1] == 0).all()
    more = torch.cat([masks, torch.full_like(masks[:1], -1)])
    padded = torch.cat([output, output[:1] * 9])
    torch.testing.assert_close(value(padded, more), value(output, masks))
    empty = value(output, torch.full_like(masks, -1))
    assert empty == 0 and (torch.autograd.grad(empty, output)[0] == 0).all()
    for scale in (1.0, 1e4):
        low = (scale * output.detach()).bfloat16().requires_grad_()
        found = value(low, masks)
        assert found.dtype == torch.float32 and found.isfinite()
        assert torch.autograd.grad(found, low)[0].isfinite().all()


def test_a_loss_of_several_outputs_needs_all_of_them():
    masks, logits, edge_logits = masks_of(ignored=False), logits_of(4), logits_of(1) + 3
    criterion = ExtraLosses(Criterion("ce"), {"boundary": "edges:20", "boundary,logits": "near_edges:0.5"})
    total, main = criterion({"logits": logits}, masks)
    assert total == main
    total, main = criterion({"logits": logits, "boundary": edge_logits}, masks)
    expected = 20 * loss("edges", edge_logits, masks) + 0.5 * loss("near_edges", [edge_logits, logits], masks)
    torch.testing.assert_close(total - main, expected)
