"""Losses against PyTorch's own and hand-computed values."""

import pytest
import torch
import torch.nn.functional as F

from utils.training.losses import LOSSES, Criterion, cross_entropy, focal


def batch(dtype=torch.float64):
    torch.manual_seed(1)
    logits = torch.randn(2, 4, 5, 6, dtype=dtype, requires_grad=True)
    masks = torch.randint(-1, 4, (2, 5, 6))
    return logits, masks


@pytest.mark.parametrize("weights", [None, torch.tensor([0.1, 2.0, 0.0, 1.0], dtype=torch.float64)])
def test_cross_entropy_equals_pytorchs(weights):
    logits, masks = batch()
    expected = F.cross_entropy(logits, masks, weights, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, masks, weights), expected)


def test_focal_by_hand():
    logits = torch.tensor([0.75, 0.25]).log().reshape(1, 2, 1, 1)
    mask = torch.zeros(1, 1, 1, dtype=torch.long)
    expected = -(0.25**2) * torch.tensor(0.75).log()
    torch.testing.assert_close(focal(logits, mask), expected)
    torch.testing.assert_close(focal(logits, mask, gamma=0.0), cross_entropy(logits, mask))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.0])])
def test_every_loss(name, weights):
    loss = LOSSES[name]
    logits, masks = batch(torch.float32)
    value = loss(logits, masks, weights)
    # Ignored pixels change nothing, neither value nor gradient.
    gradient = torch.autograd.grad(value, logits)[0]
    assert (gradient.abs().sum(1)[masks == -1] == 0).all() and gradient.abs().sum() > 0
    changed = torch.where((masks == -1)[:, None], 1e4, logits.detach())
    torch.testing.assert_close(loss(changed, masks, weights), value.detach())
    # No valid pixel: zero, with a gradient of zero and not NaN.
    empty = loss(logits, torch.full_like(masks, -1), weights)
    assert empty == 0 and (torch.autograd.grad(empty, logits)[0] == 0).all()
    # Perfection costs nothing; half precision in, at least float32 inside.
    perfect = F.one_hot(masks.clamp(min=0), 4).permute(0, 3, 1, 2) * 1000.0
    assert loss(perfect, masks, weights) == 0
    half = loss(logits.detach().bfloat16(), masks, weights)
    assert half.dtype == torch.float32 and half.isfinite()


def test_criterion_adds_weighted_auxiliary_losses():
    logits, masks = batch(torch.float32)
    criterion = Criterion("ce", [1.0, 2.0, 3.0, 4.0], aux_weight=0.4)
    total, main = criterion({"logits": logits, "aux": [logits * 2, logits * 3]}, masks)
    parts = [cross_entropy(logits * k, masks, criterion.class_weights) for k in (1, 2, 3)]
    torch.testing.assert_close(main, parts[0])
    torch.testing.assert_close(total, parts[0] + 0.4 * (parts[1] + parts[2]))
