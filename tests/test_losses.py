"""What every loss promises, one test for all; and their sums over the outputs of a network."""

import pytest
import torch
import torch.nn.functional as F

from tests import loss_references
from utils.loss_terms import EXTRA, PER_PIXEL, parse_loss
from utils.training.criterion import Criterion, ExtraLosses, smoothed
from utils.training.losses import LOSSES

K = 4
WEIGHTS = [0.5, 2.0, 1.0, 0.0]
# Each loss as people write it, also with other parameters than the usual ones. Those of edges, which weigh no
# classes, are tested in test_edge_losses.py.
WRITTEN = [
    *PER_PIXEL,
    "class_presence",
    "ce(label_smoothing=0.1)",
    "focal(gamma=0.5)",
    "ohem(threshold=0.3,kept=5)",
    "ohem(threshold=0,kept=0.4)",
    "dice(smooth=0)",
    "tversky(alpha=1,beta=0.2,smooth=3)",
    "boundary(width=5,distance=3)",
]
EVERY = pytest.mark.parametrize("text", WRITTEN)


def loss_of(text: str):
    (term,) = parse_loss(text, EXTRA)
    return lambda *given: LOSSES[term.name](*given, **term.parameters)


def batch(text: str = "ce", dtype=torch.float64):
    """Return an output that needs a gradient and masks (3, 7, 6) of blocks with ignored pixels."""
    generator = torch.Generator().manual_seed(1)
    shape = (3, K) if text == "class_presence" else (3, K, 7, 6)
    output = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
    masks = torch.randint(0, K, (3, 3, 2), generator=generator)
    masks = masks.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :7]
    masks[0][masks[0] == 2] = 3  # a class that one image does not show
    masks[torch.rand(masks.shape, generator=generator) < 0.15] = -1
    masks[1, :4, :2] = -1
    return output, masks


def perfect(text: str, masks):
    shown = F.one_hot(masks.clamp(min=0), K).permute(0, 3, 1, 2) * 1.0
    if text == "class_presence":
        shown = (shown * (masks != -1)[:, None]).flatten(2).amax(2)
    return (2 * shown - 1) * 1000.0


@EVERY
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_equals_the_slow_loop(text, weights):
    output, masks = batch(text)
    (term,) = parse_loss(text, EXTRA)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = getattr(loss_references, term.name)(output, masks, weights or [1.0] * K, **term.parameters)
    value = loss_of(text)(output, masks, given)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, output)[0] for v in (value, expected)))


@EVERY
@pytest.mark.parametrize("weights", [None, torch.tensor(WEIGHTS)], ids=["equal", "weighted"])
def test_every_loss(text, weights):
    loss = loss_of(text)
    output, masks = batch(text, torch.float32)
    value = loss(output, masks, weights)
    gradient = torch.autograd.grad(value, output)[0]
    assert value > 0 and gradient.abs().sum() > 0
    # Ignored pixels change nothing, neither value nor gradient.
    if text != "class_presence":
        assert (gradient.abs().sum(1)[masks == -1] == 0).all()
        changed = torch.where((masks == -1)[:, None], 1e4, output.detach())
        torch.testing.assert_close(loss(changed, masks, weights), value.detach())
    more = torch.cat([masks, torch.full_like(masks[:1], -1)])
    padded = torch.cat([output.detach(), output.detach()[:1] * 9])
    torch.testing.assert_close(loss(padded, more, weights), value.detach())
    # No valid pixel: zero, with a gradient of zero and not NaN.
    empty = loss(output, torch.full_like(masks, -1), weights)
    assert empty == 0 and (torch.autograd.grad(empty, output)[0] == 0).all()
    # Perfection costs nothing, but for smoothed labels, whose least cost is not zero.
    best = perfect(text, masks).requires_grad_()
    least = loss(best, masks, weights)
    assert least == 0 or "label_smoothing" in text
    assert torch.autograd.grad(least, best)[0].isfinite().all()


@EVERY
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_half_precision_comes_out_wide_and_finite(text, scale):
    output, masks = batch(text, torch.bfloat16)
    output = (output.detach() * scale).requires_grad_()
    value = loss_of(text)(output, masks, torch.tensor(WEIGHTS))
    assert value.dtype == torch.float32 and value.isfinite()
    assert torch.autograd.grad(value, output)[0].isfinite().all()


@EVERY
def test_class_weights_change_what_they_should(text):
    loss = loss_of(text)
    output, masks = batch(text)
    value = loss(output, masks)
    one = torch.eye(K, dtype=torch.float64)
    # Only what the weights are to each other counts, and each class alone has its own loss.
    torch.testing.assert_close(loss(output, masks, torch.full((K,), 7.0)), value)
    alone = torch.stack([loss(output, masks, one[k]) for k in range(K)])
    assert alone.unique().numel() == K and alone.min() < value < alone.max()
    absent = masks.clone()
    absent[absent == 2] = 1
    if text != "class_presence":  # that a class is absent is something to be learnt
        assert loss(output, absent, one[2]) == 0


def test_ohem_keeps_the_hard_pixels_alone():
    p = torch.tensor([0.9, 0.8, 0.6, 0.2])
    logits = torch.stack([p, 1 - p]).log().reshape(1, 2, 1, 4)
    masks = torch.zeros(1, 1, 4, dtype=torch.long)
    for text, hard in [
        ("ohem", [2, 3]),
        ("ohem(threshold=0.3,kept=3)", [1, 2, 3]),
        ("ohem(threshold=0)", [3]),
    ]:
        torch.testing.assert_close(loss_of(text)(logits, masks), -p[hard].log().mean())
    assert loss_of("ohem(threshold=0,kept=0)")(logits, masks) == 0


def test_equals_other_libraries():
    """Where their semantics are ours: all classes shown, no class weights."""
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    output, masks = batch()
    both = {"mode": "multiclass", "ignore_index": -1}
    for text, theirs in [
        ("dice(smooth=2)", smp.DiceLoss(**both, smooth=1.0)),  # they halve the fraction, but not this
        ("tversky(alpha=0.4,beta=0.8,smooth=1)", smp.TverskyLoss(**both, alpha=0.4, beta=0.8, smooth=1.0)),
        ("lovasz", smp.LovaszLoss(**both, per_image=True)),
    ]:
        wanted = theirs(output.float(), masks).double()  # their Lovasz knows float32 alone
        torch.testing.assert_close(loss_of(text)(output, masks), wanted, rtol=1e-6, atol=0)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.cross_entropy(output, masks, weights, ignore_index=-1)
    torch.testing.assert_close(loss_of("ce")(output, masks, weights), expected)
    expected = F.cross_entropy(output, masks, ignore_index=-1, label_smoothing=0.2)
    torch.testing.assert_close(loss_of("ce(label_smoothing=0.2)")(output, masks), expected)


def test_an_image_alone_costs_the_same_as_beside_others():
    """Losses per image are the mean of what the images cost alone."""
    output, masks = batch()
    for text in ("lovasz",):
        alone = [loss_of(text)(output[i : i + 1], masks[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(loss_of(text)(output, masks), torch.stack(alone).mean())


def test_weighted_sums_and_auxiliary_outputs():
    output, masks = batch()
    criterion = Criterion("ce+dice(smooth=0):0.5", WEIGHTS, aux_weight=0.4)

    def both(logits):
        weights = criterion.class_weights
        return loss_of("ce")(logits, masks, weights) + 0.5 * loss_of("dice(smooth=0)")(logits, masks, weights)

    outputs = {"logits": output, "aux": [output * 2, output * 3]}
    total, main = criterion(outputs, masks)
    torch.testing.assert_close(main, both(output))
    torch.testing.assert_close(total, main + 0.4 * (both(output * 2) + both(output * 3)))
    total, main = Criterion(parse_loss("ce+dice(smooth=0):0.5"), WEIGHTS, (1.0, 0.25, 9.0))(outputs, masks)
    torch.testing.assert_close(total, main + both(output * 2) + 0.25 * both(output * 3))


def test_losses_of_further_outputs():
    output, masks = batch()
    presence, _ = batch("class_presence")
    losses = {"class_presence": "class_presence:0.2", "stages": "ce:2+dice", "missing": "ce"}
    criterion = ExtraLosses(Criterion("ce", WEIGHTS), losses)
    weights = criterion.class_weights
    total, main = criterion({"logits": output}, masks)
    assert total == main
    total, main = criterion(
        {"logits": output, "class_presence": presence, "stages": [output, -output]}, masks
    )
    expected = 0.2 * loss_of("class_presence")(presence, masks, weights)
    for stage in (output, -output):
        expected += 2 * loss_of("ce")(stage, masks, weights) + loss_of("dice")(stage, masks, weights)
    torch.testing.assert_close(total - main, expected)


def test_label_smoothing_reaches_the_losses_that_have_it():
    terms = parse_loss("ce(label_smoothing=0.3)+ohem+dice")
    assert smoothed(terms, None) == terms
    found = [term.parameters.get("label_smoothing") for term in smoothed(terms, 0.1)]
    assert found == [0.1, 0.1, None]
    assert {term.parameters.get("label_smoothing") for term in smoothed(terms, 0.0)} == {0.0, None}


def test_every_loss_is_known_by_name():
    assert set(LOSSES) == set(EXTRA) and set(PER_PIXEL) < set(EXTRA)
