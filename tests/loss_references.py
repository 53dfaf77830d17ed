"""What each loss is, written as slow loops over pixels, classes and images."""

import math

import torch
from torch import Tensor

from utils.data.labels import IGNORE


def _pixels(logits: Tensor, masks: Tensor, weights: list[float]):
    """Yield (image, scores of the classes, true class, its weight) of each valid pixel."""
    scores = logits.double().softmax(1)
    for place in (masks != IGNORE).nonzero().tolist():
        image, *where = place
        true = masks[tuple(place)].item()
        yield image, scores[(image, slice(None), *where)], true, weights[true]


def _ratio(pairs: list[tuple[Tensor, float]]) -> Tensor:
    total = sum(weight for _, weight in pairs)
    return sum(weight * value for value, weight in pairs) / total if total else torch.zeros(())


def ce(logits, masks, weights, label_smoothing):
    parts, total = 0.0, 0.0
    for _, p, true, weight in _pixels(logits, masks, weights):
        spread = sum(-p[k].log() for k in range(len(p))) / len(p)
        parts += weight * ((1 - label_smoothing) * -p[true].log() + label_smoothing * spread)
        total += weight
    return parts / total


def focal(logits, masks, weights, gamma):
    pixels = _pixels(logits, masks, weights)
    return _ratio([(-((1 - p[true]) ** gamma) * p[true].log(), w) for _, p, true, w in pixels])


def ohem(logits, masks, weights, threshold, kept, label_smoothing):
    assert label_smoothing == 0
    chosen = []
    for image in range(len(masks)):
        pixels = [(p[true], w) for i, p, true, w in _pixels(logits, masks, weights) if i == image]
        pixels.sort(key=lambda pixel: pixel[0].item())
        least = math.ceil(kept * len(pixels)) if kept < 1 else int(kept)
        chosen += [(-p.log(), w) for n, (p, w) in enumerate(pixels) if n < least or p < threshold]
    return _ratio(chosen)


def dice(logits, masks, weights, smooth):
    return tversky(logits, masks, weights, None, None, smooth)


def tversky(logits, masks, weights, alpha, beta, smooth):
    """Tversky's, or Dice's where alpha is None."""
    classes = logits.shape[1]
    both, scores, truth = ([0.0] * classes for _ in range(3))
    for _, p, true, _ in _pixels(logits, masks, weights):
        both[true] += p[true]
        truth[true] += 1
        for k in range(classes):
            scores[k] += p[k]
    terms = []
    for k in range(classes):
        if alpha is None:
            index = (2 * both[k] + smooth) / (scores[k] + truth[k] + smooth)
        else:
            wrong = alpha * (scores[k] - both[k]) + beta * (truth[k] - both[k])
            index = (both[k] + smooth) / (both[k] + wrong + smooth)
        terms.append((1 - index, weights[k] * (truth[k] > 0)))
    return _ratio(terms)


def lovasz(logits, masks, weights):
    images = []
    for image in range(len(masks)):
        pixels = [(p, true) for i, p, true, _ in _pixels(logits, masks, weights) if i == image]
        terms = []
        for k in {true for _, true in pixels}:
            errors = sorted(
                (((p[k] - float(true == k)).abs(), true == k) for p, true in pixels),
                key=lambda e: -e[0].item(),
            )
            size = sum(inside for _, inside in errors)
            # The Lovasz extension: each error times what its pixel adds to 1 - IoU of those before it.
            value, before, wrong = 0.0, 0.0, 0
            missed = 0
            for error, inside in errors:
                missed += inside
                wrong += not inside
                now = 1 - (size - missed) / (size + wrong)
                value, before = value + error * (now - before), now
            terms.append((value, weights[k]))
        if sum(weight for _, weight in terms):
            images.append((_ratio(terms), 1))
    return _ratio(images)


def boundary(logits, masks, weights, width, distance):
    scores = logits.double().softmax(1)
    _, rows, columns = masks.shape

    def around(row, column, size):
        reach = int(size) // 2
        for r in range(max(row - reach, 0), min(row + reach + 1, rows)):
            for c in range(max(column - reach, 0), min(column + reach + 1, columns)):
                yield r, c

    def outline(region, valid):
        places = {}
        for place in valid:
            near = max(1 - region[other] for other in around(*place, width) if other in valid)
            places[place] = near - (1 - region[place])
        return places

    terms = []
    for image, mask in enumerate(masks):
        valid = {tuple(place) for place in (mask != IGNORE).nonzero().tolist()}
        for k in {mask[place].item() for place in valid}:
            own = outline({place: scores[(image, k, *place)] for place in valid}, valid)
            theirs = outline({place: float(mask[place] == k) for place in valid}, valid)
            if not sum(theirs.values()):
                continue

            def hit(one, other, valid=valid):
                near = {p: max(other[q] for q in around(*p, distance) if q in valid) for p in valid}
                return (sum(one[p] * near[p] for p in valid) + 1) / (sum(one.values()) + 1)

            precision, recall = hit(own, theirs), hit(theirs, own)
            terms.append((1 - 2 * precision * recall / (precision + recall), weights[k]))
    return _ratio(terms)


def class_presence(logits, masks, weights):
    terms = []
    for image, mask in enumerate(masks):
        if (mask != IGNORE).any():
            for k, logit in enumerate(logits[image].double()):
                score = logit.sigmoid()
                terms.append((-(score if (mask == k).any() else 1 - score).log(), weights[k]))
    return _ratio(terms)
