"""The assignment of queries to classes: invariants, hand-computed cases and an independent loop."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nets.layers.points import random_points, sample
from utils.data.labels import IGNORE
from utils.training.matcher import Targets, assign, match, pair_costs
from utils.training.points import sample_truth, uncertain_points

K, Q, POINTS = 5, 7, 300


def batch(images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask_logits = torch.randn(images, Q, 6, 8, dtype=torch.float64, generator=generator) * 3
    class_logits = torch.randn(images, Q, K + 1, dtype=torch.float64, generator=generator)
    masks = torch.randint(0, K - 1, (images, 3, 4), generator=generator)
    return mask_logits, class_logits, masks.repeat_interleave(8, 1).repeat_interleave(8, 2)


def pairs(mask_logits, class_logits, masks, seed=0):
    """Return the pairs as a set of (image, query, class)."""
    generator = torch.Generator().manual_seed(seed)
    found = match(mask_logits, class_logits, Targets.of(masks), POINTS, generator)
    return set(zip(found.images.tolist(), found.queries.tolist(), found.classes.tolist(), strict=True))


def test_every_class_that_is_shown_has_one_query():
    mask_logits, class_logits, masks = batch()
    masks[0, :, :9] = IGNORE
    found = pairs(mask_logits, class_logits, masks)
    shown = {(i, int(k)) for i, mask in enumerate(masks) for k in mask.unique() if k != IGNORE}
    assert {(i, k) for i, _, k in found} == shown and len(found) == len(shown)
    assert len({(i, q) for i, q, _ in found}) == len(found)


def test_a_batch_equals_its_images():
    mask_logits, class_logits, masks = batch()
    masks[1, :3] = IGNORE
    points = [random_points(1, POINTS, mask_logits) for _ in masks]
    whole = Targets.of(masks)
    for i, mask in enumerate(masks):
        alone = Targets.of(mask[None])
        assert torch.equal(alone.classes[0], whole.classes[i])
        costs = [
            pair_costs(
                mask_logits[i],
                class_logits[i],
                targets.masks[at] == targets.classes[at][:, None, None],
                None if targets.valid is None else targets.valid[at],
                targets.classes[at],
                points[i],
            )
            for targets, at in ((whole, i), (alone, 0))
        ]
        torch.testing.assert_close(costs[0], costs[1])
    # The first image of a batch meets the same points as alone.
    first = pairs(mask_logits[:1], class_logits[:1], masks[:1])
    assert first == {pair for pair in pairs(mask_logits, class_logits, masks) if pair[0] == 0}


def test_permuted_targets_change_nothing():
    mask_logits, class_logits, masks = batch()
    renamed = torch.tensor([3, 0, 4, 1, 2])  # what class k is called now: another order of the targets
    logits = torch.empty_like(class_logits)
    logits[..., renamed], logits[..., K] = class_logits[..., :K], class_logits[..., K]
    found = pairs(mask_logits, logits, renamed[masks])
    assert found == {(i, q, int(renamed[k])) for i, q, k in pairs(mask_logits, class_logits, masks)}


def test_permuted_queries_permute_the_result():
    mask_logits, class_logits, masks = batch()
    order = torch.randperm(Q, generator=torch.Generator().manual_seed(1))
    found = pairs(mask_logits[:, order], class_logits[:, order], masks)
    assert {(i, int(order[q]), k) for i, q, k in found} == pairs(mask_logits, class_logits, masks)


def test_images_without_and_with_one_class():
    mask_logits, class_logits, masks = batch()
    masks[0], masks[1] = IGNORE, 2
    found = pairs(mask_logits, class_logits, masks)
    assert not [pair for pair in found if pair[0] == 0]
    assert [k for i, _, k in found if i == 1] == [2]
    assert pairs(mask_logits[:2], class_logits[:2], torch.full_like(masks[:2], IGNORE)) == set()


def test_more_classes_than_queries():
    mask_logits, class_logits, masks = batch()
    found = pairs(mask_logits[:, :2], class_logits[:, :2], masks)
    assert len(found) == 2 * 3 and {q for _, q, _ in found} == {0, 1}
    assert len({(i, k) for i, _, k in found}) == 6


def test_clear_cases_are_matched_as_a_person_would():
    masks = torch.zeros(1, 8, 8, dtype=torch.long)
    masks[:, :, 4:] = 3
    mask_logits = torch.full((1, 3, 8, 8), -9.0)
    mask_logits[0, 2, :, :4], mask_logits[0, 0, :, 4:] = 9.0, 9.0
    assert pairs(mask_logits, torch.zeros(1, 3, 6), masks) == {(0, 2, 0), (0, 0, 3)}
    # Equal masks: the class decides.
    class_logits = torch.zeros(1, 3, 6)
    class_logits[0, 1, 0], class_logits[0, 2, 3] = 5.0, 5.0
    assert pairs(torch.zeros(1, 3, 8, 8), class_logits, masks) == {(0, 1, 0), (0, 2, 3)}


def bilinear(values, x, y):
    """Return a 2-D list at (x, y) in pixels from the centre of the first one; 0 outside."""
    total = 0.0
    for row, column in itertools.product(
        (math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)
    ):
        if 0 <= row < len(values) and 0 <= column < len(values[0]):
            total += values[row][column] * (1 - abs(row - y)) * (1 - abs(column - x))
    return total


def test_costs_equal_an_independent_loop():
    mask_logits, class_logits, masks = batch(1)
    classes = masks.unique()
    points = random_points(1, 20, mask_logits)
    found = pair_costs(
        mask_logits[0], class_logits[0], masks[0] == classes[:, None, None], None, classes, points
    )
    for (q, logits), (t, k) in itertools.product(
        enumerate(mask_logits[0].tolist()), enumerate(classes.tolist())
    ):
        bce = both = either = 0.0
        for x, y in points[0].tolist():
            logit = bilinear(logits, x * 8 - 0.5, y * 6 - 0.5)
            label = bilinear((masks[0] == k).double().tolist(), x * 32 - 0.5, y * 24 - 0.5)
            score = 1 / (1 + math.exp(-logit))
            bce -= label * math.log(score) + (1 - label) * math.log(1 - score)
            both, either = both + score * label, either + score + label
        by_class = -math.exp(class_logits[0, q, k]) / sum(math.exp(z) for z in class_logits[0, q])
        expected = 2 * by_class + 5 * bce / 20 + 5 * (1 - (2 * both + 1) / (either + 1))
        assert float(found[q, t]) == pytest.approx(expected, rel=1e-9)


def test_ignored_pixels_have_no_weight_in_the_costs():
    mask_logits, class_logits, masks = batch(1)
    mask_logits = F.interpolate(mask_logits, (24, 32))  # one logit per pixel
    masks[:, :, 16:] = IGNORE
    targets = Targets.of(masks)
    truth = masks[0] == targets.classes[0][:, None, None]
    points = random_points(1, POINTS, mask_logits)

    def costs(points, logits=mask_logits):
        return pair_costs(logits[0], class_logits[0], truth, targets.valid[0], targets.classes[0], points)

    expected = costs(points)
    assert len(expected[0]) > 1
    touching = points[:, points[0, :, 0] * 32 - 0.5 < 16]  # at least one valid pixel
    torch.testing.assert_close(costs(touching), expected)
    changed = mask_logits.clone()
    changed[..., 17:] = 50.0  # column 16 has a share in the points between it and the last valid one
    torch.testing.assert_close(costs(points, changed), expected)


def test_labels_near_ignored_pixels_are_those_of_the_valid_ones():
    mask = torch.tensor([[[1, IGNORE], [1, 0]]])
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.25], [0.5, 0.5], [0.75, 0.25], [0.5, 0.75], [0.0, 0.25]]])
    labels, weights = sample_truth((mask == 1)[:, None], mask != IGNORE, points)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.5, 0.75, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(labels[:, 0], torch.tensor([[1.0, 1.0, 2 / 3, 0.0, 0.5, 0.5]]))


def test_uncertain_points():
    logits = torch.full((2, 8, 8), 9.0)
    logits[0, :, 4], logits[1, 2] = 0.0, 0.0
    points = uncertain_points(logits, None, 400, torch.Generator().manual_seed(0))
    assert points.shape == (2, 400, 2) and points.min() >= 0 and points.max() <= 1
    undecided = (sample(logits[:, None], points) < 8.9).double().mean((1, 2))
    by_chance = (sample(logits[:, None], random_points(2, 400, logits)) < 8.9).double().mean((1, 2))
    assert (by_chance < 0.6).all() and (undecided > 0.75 + 0.25 * by_chance - 0.05).all()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, :, 3:] = False
    points = uncertain_points(logits, valid, 400, torch.Generator().manual_seed(0))[0, :300]
    assert (points[:, 0] * 8 - 0.5 < 3).all(), "a place that is ignored was sought"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_come_last(bad):
    costs = np.array([[1.0, 2.0], [bad, bad], [0.0, bad]])
    rows, columns = assign(costs)
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (2, 0)]
    rows, columns = assign(np.full((3, 2), bad))
    assert len(rows) == 2
    assert len(assign(np.zeros((3, 0)))[0]) == 0
