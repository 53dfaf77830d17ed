"""Training crops around rare classes."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from utils.data.labels import IGNORE, Classes
from utils.data.masks import SMALL_LABEL, MaskWindows, read_mask, shows
from utils.data.raster import Window
from utils.data.samples import Sample
from utils.data.threads import in_threads

# Pixels of each class that are remembered of a label too large to be looked through for every crop.
_REMEMBERED = 512


class RareClassSampling:
    """Draws a class, an image that holds it, and a pixel of the class that the crop must contain.

    Hoyer et al., "DAFormer: Improving Network Architectures and Training Strategies for Domain-Adaptive
    Semantic Segmentation", CVPR 2022, https://arxiv.org/abs/2111.14887: the chance of a class is
    softmax((1 - f) / temperature) over the classes that occur, f being its share of the training pixels;
    all images that hold the class are alike. There a crop is drawn up to ten times until enough of the class
    is in it; here it is placed about one of its pixels, so that a speck in a large scene is found too.

    Args:
        samples: The training samples, with their `class_counts`; a scene is one of them.
        classes: Meaning of the label values.
        temperature: Small draws the rarest class nearly always, large draws all classes alike.
        seed: Of the pixels that are remembered of large labels.
        progress: Show a bar while large labels are looked through.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Classes,
        temperature: float,
        seed: int = 0,
        *,
        progress: bool = True,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        totals = np.zeros(classes.num_classes, dtype=np.int64)
        holders: list[list[int]] = [[] for _ in range(classes.num_classes)]
        for index, sample in enumerate(samples):
            for class_id, count in sample.class_counts:
                totals[class_id] += count
                holders[class_id].append(index)
        self.probabilities = class_probabilities(totals, temperature)
        self.holders = [np.array(indices, dtype=np.int64) for indices in holders]
        large = [i for i, sample in enumerate(samples) if sample.height * sample.width > SMALL_LABEL]
        remember = partial(_remember, samples, classes, seed)
        found = in_threads(remember, large, None, "finding rare classes" if progress and large else None)
        self.remembered = dict(zip(large, found, strict=True))

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a class and the index of a sample that holds it."""
        class_id = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return class_id, int(rng.choice(self.holders[class_id]))

    def positions(self, index: int, class_id: int, masks: MaskWindows) -> np.ndarray | None:
        """Return pixels (N, 2) of a class in a sample; None where, against its counts, it has none."""
        if index in self.remembered:
            return self.remembered[index].get(class_id)
        mask = masks.whole
        pixels = np.argwhere(shows(mask, class_id))
        return pixels if len(pixels) else None


def class_probabilities(totals: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax((1 - f) / temperature) of pixel counts (K); zero for a class that does not occur."""
    present = totals > 0
    shares = totals[present] / totals.sum()
    weights = np.zeros(len(totals))
    # The greatest exponent is 0: nothing overflows.
    weights[present] = np.exp((shares.min() - shares) / temperature)
    return weights / weights.sum()


def _remember(samples: Sequence[Sample], classes: Classes, seed: int, index: int) -> dict[int, np.ndarray]:
    """Return random pixels (N, 2) of each class of a sample, read strip by strip."""
    sample = samples[index]
    rng = np.random.default_rng((seed, index))
    seen: dict[int, int] = {}
    kept: dict[int, np.ndarray] = {}
    for window in _strips(sample):
        for class_id, places in _by_class(read_mask(sample, classes, window)):
            count = len(places)
            # Each place keeps, of all pixels so far, each with the same chance.
            seen[class_id] = seen.get(class_id, 0) + count
            new = rng.random(_REMEMBERED) < count / seen[class_id]
            chosen = places[rng.integers(count, size=int(new.sum()))]
            pixels = kept.setdefault(class_id, np.zeros((_REMEMBERED, 2), dtype=np.int32))
            pixels[new, 0] = window.top + chosen // sample.width
            pixels[new, 1] = chosen % sample.width
    return kept


def _by_class(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each class that a mask shows, and its pixels (N) from the first row on."""
    if mask.ndim == 3:
        for class_id, plane in enumerate(mask):
            if (places := np.flatnonzero(plane == 1)).size:
                yield class_id, places
        return
    order = np.argsort(mask.ravel(), kind="stable")
    ids, starts = np.unique(mask.ravel()[order], return_index=True)
    for class_id, places in zip(ids.tolist(), np.split(order, starts[1:]), strict=True):
        if class_id != IGNORE:
            yield class_id, places


def _strips(sample: Sample) -> Iterator[Window]:
    rows = max(1, SMALL_LABEL // sample.width)
    for top in range(0, sample.height, rows):
        yield Window(top, 0, min(rows, sample.height - top), sample.width)
