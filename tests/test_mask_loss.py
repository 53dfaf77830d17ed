"""The set loss of mask networks: Hugging Face's, hand-computed cases, ignored pixels, class weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from nets.layers import deformable_attention
from utils.data.labels import IGNORE
from utils.training.focal_mask_loss import FocalMaskCriterion
from utils.training.mask_loss import MaskCriterion, point_losses
from utils.training.matcher import Targets

K, Q = 5, 7


def batch(dtype=torch.float32, layers=3):
    """Return outputs that need gradients and masks (3, 24, 32) of blocks."""
    torch.manual_seed(3)
    outputs = {
        "mask_logits": [(3 * torch.randn(3, Q, 6, 8, dtype=dtype)).requires_grad_() for _ in range(layers)],
        "class_logits": [torch.randn(3, Q, K + 1, dtype=dtype).requires_grad_() for _ in range(layers)],
    }
    masks = torch.randint(0, K, (3, 3, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return outputs, masks


def criterion(weights=None, points=500):
    return MaskCriterion(weights, points)


@pytest.fixture
def float64():
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the reference draws its points in this type
    yield
    torch.set_default_dtype(usual)


@pytest.mark.parametrize("queries", [7, 3], ids=["enough queries", "too few queries"])
def test_equals_hugging_face(float64, queries):
    transformers = pytest.importorskip("transformers")
    reference = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    config = transformers.Mask2FormerConfig(num_labels=K, train_num_points=500)
    assert (config.no_object_weight, config.oversample_ratio, config.importance_sample_ratio) == (
        0.1,
        3,
        0.75,
    )
    weights = {"cross_entropy": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
    theirs = reference.Mask2FormerLoss(config, weights)
    outputs, masks = batch(torch.float64)
    outputs = {name: [layer[:, :queries] for layer in layers] for name, layers in outputs.items()}
    masks[2] = 4  # a single class
    classes = [mask.unique() for mask in masks]
    truth = [(mask == own[:, None, None]).double() for mask, own in zip(masks, classes, strict=True)]
    *earlier, last = [
        {"masks_queries_logits": m, "class_queries_logits": c}
        for m, c in zip(outputs["mask_logits"], outputs["class_logits"], strict=True)
    ]
    torch.manual_seed(11)
    expected = theirs(**last, mask_labels=truth, class_labels=classes, auxiliary_predictions=earlier)
    ours = criterion()
    torch.manual_seed(11)
    terms = ours.terms(outputs["mask_logits"][-1], outputs["class_logits"][-1], Targets.of(masks))
    for name, term in zip(weights, terms, strict=True):
        torch.testing.assert_close(term, expected[f"loss_{name}"], rtol=1e-5, atol=0)
    torch.manual_seed(11)
    total, main = ours(outputs, masks)
    weighted = {
        key: weight * value
        for name, weight in weights.items()
        for key, value in expected.items()
        if key.startswith(f"loss_{name}")
    }
    assert len(weighted) == 9
    torch.testing.assert_close(total, sum(weighted.values()), rtol=1e-5, atol=0)
    torch.testing.assert_close(main, sum(weighted[f"loss_{name}"] for name in weights), rtol=1e-5, atol=0)


@pytest.mark.parametrize("queries", [7, 3], ids=["enough queries", "too few queries"])
def test_the_focal_loss_equals_hugging_face(queries):
    reference = pytest.importorskip("transformers.models.maskformer.modeling_maskformer")
    weights = {"cross_entropy": 1.0, "mask": 20.0, "dice": 1.0}
    matcher = reference.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    theirs = reference.MaskFormerLoss(K, matcher, weights, eos_coef=0.1).double()
    outputs, masks = batch(torch.float64)
    outputs = {name: [layer[:, :queries] for layer in layers] for name, layers in outputs.items()}
    masks[2] = 4  # a single class
    classes = [mask.unique() for mask in masks]
    truth = [(mask == own[:, None, None]).double() for mask, own in zip(masks, classes, strict=True)]
    *earlier, last = [
        {"masks_queries_logits": m, "class_queries_logits": c}
        for m, c in zip(outputs["mask_logits"], outputs["class_logits"], strict=True)
    ]
    expected = theirs(**last, mask_labels=truth, class_labels=classes, auxiliary_predictions=earlier)
    total, main = FocalMaskCriterion()(outputs, masks)
    sums = [weight * expected[f"loss_{name}"] for name, weight in weights.items()]
    torch.testing.assert_close(main, sum(sums), rtol=1e-6, atol=0)
    rest = [
        weight * expected[f"loss_{name}_{i}"] for name, weight in weights.items() for i in range(len(earlier))
    ]
    torch.testing.assert_close(total, sum(sums) + sum(rest), rtol=1e-6, atol=0)


def test_ignored_pixels_change_nothing_of_the_focal_loss():
    outputs, masks = batch(torch.float64, layers=1)
    logits = F.interpolate(outputs["mask_logits"][0].detach(), (24, 32))
    masks[:, 16:] = IGNORE
    changed = logits.clone()
    changed[:, :, 16:] = 30 * torch.randn(3, Q, 8, 32, dtype=torch.float64)
    losses = [
        FocalMaskCriterion()({**outputs, "mask_logits": [each]}, masks)[1] for each in (logits, changed)
    ]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    whole = FocalMaskCriterion()({**outputs, "mask_logits": [logits[:, :, :16]]}, masks[:, :16])[1]
    torch.testing.assert_close(losses[0], whole, rtol=1e-12, atol=0)
    masks[:] = IGNORE
    assert FocalMaskCriterion()({**outputs, "mask_logits": [logits]}, masks)[1].isfinite()


def test_point_losses_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [5.0, 5.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    bce, dice = point_losses(logits, labels, weights)
    torch.testing.assert_close(bce, torch.tensor([(math.log(2) + math.log(4)) / 2, math.log(2), 0.0]))
    torch.testing.assert_close(dice, torch.tensor([1 - 2 / 3.25, 1 - 2 / 2.5, 0.0]))


def test_class_term_by_hand():
    masks = torch.full((3, 24, 32), IGNORE)
    masks[0], masks[1] = 2, 3
    mask_logits = torch.zeros(3, Q, 6, 8)
    class_logits = torch.zeros(3, Q, K + 1)
    class_logits[0, 4, 2] = class_logits[1, 1, 3] = 2.0  # matched by their class
    targets = Targets.of(masks)
    found, rest = math.log(math.e**2 + K) - 2, math.log(K + 1)
    for weights, (two, three) in ((None, (1, 1)), ([1.0, 1.0, 5.0, 0.5, 1.0], (5, 0.5))):
        term = criterion(weights).terms(mask_logits, class_logits, targets)[0]
        count = 3 * Q - 2
        expected = ((two + three) * found + 0.1 * count * rest) / (two + three + 0.1 * count)
        assert float(term) == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_costs_almost_nothing():
    masks = torch.zeros(1, 256, 256, dtype=torch.long)
    masks[:, 100:] = 3
    mask_logits = torch.full((1, Q, 256, 256), -8.0)
    mask_logits[:, 5, :100], mask_logits[:, 2, 100:] = 8.0, 8.0
    classes = torch.full((1, Q), K)
    classes[:, 5], classes[:, 2] = 0, 3
    class_logits = 20.0 * F.one_hot(classes, K + 1)
    perfect = criterion()({"mask_logits": [mask_logits], "class_logits": [class_logits]}, masks)[1]
    blank = criterion()({"mask_logits": [mask_logits * 0], "class_logits": [class_logits * 0]}, masks)[1]
    swapped = criterion()({"mask_logits": [-mask_logits], "class_logits": [class_logits]}, masks)[1]
    # What is left is paid for points between the classes and at the border, whose labels are not 0 or 1.
    assert perfect < 0.02 * blank and blank < swapped


def test_ignored_pixels_change_nothing():
    outputs, masks = batch(layers=1)
    logits = F.interpolate(outputs["mask_logits"][0].detach(), (24, 32)).requires_grad_()
    masks[:, 16:] = IGNORE
    targets, class_logits = Targets.of(masks), outputs["class_logits"][0]

    def terms(logits):
        torch.manual_seed(0)
        return criterion().terms(logits, class_logits, targets)

    expected = terms(logits)
    gradient = torch.autograd.grad(sum(expected), logits)[0]
    assert (gradient[:, :, 17:] == 0).all() and (gradient[:, :, :16] != 0).any()
    changed = logits.detach().clone()
    changed[:, :, 17:] = 30 * torch.randn(3, Q, 7, 32)
    torch.testing.assert_close(terms(changed), tuple(term.detach() for term in expected))


def test_padding_with_ignored_pixels_keeps_labels_and_masks_together():
    """A padded batch, as validation makes it: what is learnt on the image is right on the padded one."""
    masks = torch.zeros(1, 128, 128, dtype=torch.long)
    masks[:, :, 40:] = 1
    padded = F.pad(masks, (0, 64, 0, 32), value=IGNORE)
    mask_logits = 8.0 * torch.stack([masks == 0, masks == 1], 1) - 4.0
    class_logits = torch.tensor([[[9.0, 0, 0], [0, 9.0, 0]]])
    own = MaskCriterion().eval()
    losses = []
    for fill, truth in ((None, masks), (0.0, padded), (-9.0, padded), (9.0, padded)):
        logits = mask_logits if fill is None else F.pad(mask_logits, (0, 64, 0, 32), value=fill)
        logits = F.interpolate(logits, scale_factor=0.5, mode="area")  # lower than the image
        losses.append(float(own({"mask_logits": [logits], "class_logits": [class_logits]}, truth)[1]))
    assert losses[1:] == pytest.approx([losses[0]] * 3, abs=0.15)
    wrong = {"mask_logits": [-mask_logits], "class_logits": [class_logits]}
    assert own(wrong, masks)[1] > 10 * max(losses)


@pytest.mark.parametrize("empty", [1, 3], ids=["one image", "whole batch"])
def test_an_image_without_valid_pixels_teaches_only_that_nothing_is_there(empty):
    outputs, masks = batch()
    masks[:empty] = IGNORE
    total, main = criterion()(outputs, masks)
    total.backward()
    assert total.isfinite() and main.isfinite() and total > main
    for mask_logits, class_logits in zip(*outputs.values(), strict=True):
        assert (mask_logits.grad[:empty] == 0).all()
        assert (class_logits.grad[:empty, :, K] < 0).all()
        assert (mask_logits.grad[empty:] != 0).flatten(1).any(1).all()


def test_class_weights_reach_every_term():
    outputs, masks = batch(layers=1)
    layer = outputs["mask_logits"][0].detach(), outputs["class_logits"][0].detach()
    targets = Targets.of(masks)

    def terms(*weights):
        torch.manual_seed(0)
        return torch.stack(criterion(list(weights) or None).terms(*layer, targets))

    torch.testing.assert_close(terms(1.0, 1.0, 1.0, 1.0, 1.0), terms())
    single = torch.stack([terms(*row) for row in torch.eye(K).tolist()])
    assert ((terms(4.0, 1.0, 1.0, 1.0, 1.0) - terms()).abs() > 1e-3).all()
    # The mask losses are means over the objects, each as heavy as its class.
    counts = torch.stack([(torch.cat(targets.classes) == k).sum() for k in range(K)])
    weights = torch.tensor([4.0, 0.5, 2.0, 0.0, 1.0])
    share = counts * weights / (counts * weights).sum()
    torch.testing.assert_close(terms(*weights.tolist())[1:], share @ single[:, 1:])
    assert (terms(0.0, 0.0, 0.0, 0.0, 0.0)[1:] == 0).all()


def test_half_precision():
    outputs, masks = batch()
    expected = [loss.item() for loss in criterion().eval()(outputs, masks)]
    half = {name: [layer.detach().bfloat16().requires_grad_() for layer in x] for name, x in outputs.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion().eval()(half, masks)
    assert [loss.dtype for loss in losses] == [torch.float32] * 2
    assert [loss.item() for loss in losses] == pytest.approx(expected, rel=0.02)
    losses[0].backward()
    assert all(layer.grad.isfinite().all() for layers in half.values() for layer in layers)
    # Autocast rounds nothing on the way, so that queries which differ little are told apart.
    outputs["mask_logits"] = [1e-3 * layer[:, :1] + 1e-4 * layer for layer in outputs["mask_logits"]]
    outputs["class_logits"] = [0 * layer for layer in outputs["class_logits"]]
    expected = criterion().eval()(outputs, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion().eval()(outputs, masks)
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)


def test_a_device_that_cannot_differentiate_grid_sample_trains(monkeypatch):
    outputs, masks = batch(torch.float64)
    masks[0], masks[1, :9] = IGNORE, IGNORE
    logits = [layer for layers in outputs.values() for layer in layers]
    expected = torch.autograd.grad(criterion().eval()(outputs, masks)[0], logits)
    grid_sample = F.grid_sample

    def forward_only(maps, places, **more):
        assert not maps.requires_grad and not places.requires_grad, "as on Apple's GPUs"
        return grid_sample(maps, places, **more)

    monkeypatch.setattr(F, "grid_sample", forward_only)
    monkeypatch.setattr(deformable_attention, "sample_by_grid", deformable_attention.sample_by_corners)
    for masks_of_all in (masks, torch.full_like(masks, IGNORE)):
        torch.autograd.grad(criterion().eval()(outputs, masks_of_all)[0], logits)
    found = torch.autograd.grad(criterion().eval()(outputs, masks)[0], logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("key", ["mask_logits", "class_logits"])
def test_a_network_that_is_broken_gives_a_loss_that_says_so(key):
    outputs, masks = batch(layers=1)
    outputs = {**outputs, key: [torch.full_like(outputs[key][0], math.nan)]}
    assert criterion()(outputs, masks)[0].isnan()


def test_points_repeat_and_a_validation_leaves_the_random_state_alone():
    outputs, masks = batch()
    own = criterion()
    torch.manual_seed(5)
    first, second = own(outputs, masks)[0], own(outputs, masks)[0]
    torch.manual_seed(5)
    assert torch.equal(own(outputs, masks)[0], first) and not torch.equal(first, second)
    own.eval()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fixed = own(outputs, masks)[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(own(outputs, masks)[0], fixed)
