"""The scores of a whole split from the shares of the processes that judge it, and those of its scenes."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from utils.distributed import count, gathered, total
from utils.evaluation.boundary import BoundaryIoU
from utils.evaluation.metrics import ConfusionMatrix, Metrics, compute_metrics


def whole_split(
    confusion: ConfusionMatrix, scores: Mapping[int, Metrics], left_out: int = 0
) -> tuple[ConfusionMatrix, list[Metrics], int]:
    """Return the confusion matrix, the scores of all images in their order, and the pixels left out.

    Args:
        confusion: of this process's images.
        scores: number of an image -> its scores, for this process's images.
        left_out: pixels of these images that are not counted.
    """
    whole = ConfusionMatrix.of(total(confusion.matrix.cpu()))
    every = dict(scores)
    if count() > 1:
        own = json.dumps({str(index): metrics.to_dict() for index, metrics in scores.items()})
        for text in gathered(own):
            every.update({int(index): Metrics.from_dict(plain) for index, plain in json.loads(text).items()})
    return whole, [every[index] for index in sorted(every)], int(total(torch.tensor(left_out)))


def add_up_boundary(boundary: BoundaryIoU) -> None:
    """Add the outlines of all processes."""
    boundary.hits, boundary.union = total(boundary.hits), total(boundary.union)


class SceneScores:
    """One confusion matrix for each scene that is judged block by block.

    Args:
        blocks: name of a block -> name of its scene; a tile is a block of itself and not counted here.
        num_classes: K.
        task: of the network.
    """

    def __init__(self, blocks: Mapping[str, str], num_classes: int, task: str = "multiclass") -> None:
        self.blocks = {block: scene for block, scene in blocks.items() if block != scene}
        self.scenes = {scene: ConfusionMatrix(num_classes, task) for scene in self.blocks.values()}

    def update(self, names: Sequence[str], predictions: Tensor, masks: Tensor) -> None:
        """Add a batch of blocks, masks negative where ignored."""
        for index, name in enumerate(names):
            if name in self.blocks:
                part = slice(index, index + 1)
                self.scenes[self.blocks[name]].update(predictions[part], masks[part])

    def compute(self) -> dict[str, Metrics]:
        """Return the scores of each scene from the blocks of all processes."""
        return {scene: compute_metrics(total(own.matrix.cpu())) for scene, own in self.scenes.items()}
