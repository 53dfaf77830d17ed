"""The pass over a split: counts, losses, padding and modes, with a 1x1 network."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.evaluation_helpers import Brightest
from utils.evaluation.evaluate import evaluate_network
from utils.inference.padding import pad_to_rules

CPU = torch.device("cpu")


def batch(values: list, masks: list) -> dict:
    """One batch of images (B, 4, H, W) whose first band is `values` (B, H, W)."""
    first = torch.tensor(values, dtype=torch.int16)[:, None]
    mask = torch.tensor(masks, dtype=torch.int16)
    image = torch.cat([first, torch.zeros_like(first).expand(-1, 3, -1, -1)], dim=1)
    return {"image": image, "valid": mask > -2, "mask": mask, "name": ["x"] * len(mask)}


def criterion(outputs, masks):
    """Give the number of valid pixels as the total loss and the share of class 1 as the main one."""
    valid = (masks >= 0).sum().float()
    return valid, (masks == 1).sum() / valid


@pytest.mark.parametrize("wrap", [lambda network: network, nn.DataParallel], ids=["plain", "DataParallel"])
def test_evaluate_network(wrap):
    inner = Brightest()
    loader = [batch([[[0, 200]], [[200, 0]]], [[[0, 1]], [[0, -1]]]), batch([[[0, 0, 0]]], [[[0, 1, -1]]])]
    confusion, losses, scores = evaluate_network(wrap(inner), loader, CPU, criterion)
    assert confusion.matrix.tolist() == [[2, 1], [1, 1]]
    assert [score.mIoU for score in scores] == [1.0, 0.0, 0.25]
    # batches of 3 and 2 valid pixels; padding must not count as valid
    assert losses["total"] == pytest.approx((3 * 3 + 2 * 2) / 5)
    assert losses["main"] == pytest.approx((3 * (1 / 3) + 2 * (1 / 2)) / 5)
    assert inner.sizes == [(48, 48), (48, 48)]
    assert evaluate_network(wrap(inner), loader, CPU)[1] is None


def test_modes_are_restored_even_after_an_error():
    network = Brightest().train()
    network.norm.eval()
    evaluate_network(network, [batch([[[0, 0]]], [[[0, 0]]])], CPU)
    assert network.modes == [False]
    assert network.training and network.classifier.training and not network.norm.training

    def broken(outputs, masks):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        evaluate_network(network, [batch([[[0, 0]]], [[[0, 0]]])], CPU, broken)
    assert network.training and not network.norm.training


def test_a_batch_without_valid_pixels_does_not_spoil_the_loss():
    empty, full = batch([[[0]]], [[[-1]]]), batch([[[0, 0]]], [[[0, 1]]])
    _, losses, scores = evaluate_network(Brightest(), [empty, full], CPU, criterion)
    assert losses == {"total": 2.0, "main": 0.5}
    assert scores[0].absent == (0, 1)
    assert np.isnan(evaluate_network(Brightest(), [empty], CPU, criterion)[1]["main"])


def test_progress_wraps_the_loader_and_shows_the_loss():
    class Bar(list):
        shown = None

        def set_postfix(self, **values):
            self.shown = values

    bars = []

    def progress(loader):
        bars.append(Bar(loader))
        return bars[0]

    evaluate_network(Brightest(), [batch([[[0, 0]]], [[[0, 1]]])], CPU, criterion, progress)
    assert bars[0].shown == {"loss": "0.5000"}


@pytest.mark.parametrize(
    ("divisor", "smallest", "size", "expected"),
    [
        (1, 32, (40, 33), (40, 33)),
        (1, 32, (5, 40), (32, 40)),
        (32, 32, (33, 64), (64, 64)),
        (7, 32, (1, 36), (35, 42)),
    ],
)
def test_pad_to_rules(divisor, smallest, size, expected):
    network = nn.Identity()
    network.size_divisor, network.min_size = divisor, smallest
    images = torch.ones(2, 3, *size, dtype=torch.float32 if size == expected else torch.int16)
    padded, (height, width) = pad_to_rules(images, network)
    assert tuple(padded.shape[-2:]) == expected and (height, width) == size
    assert torch.equal(padded[..., :height, :width], images.float())
    assert padded.isnan().sum() == 2 * 3 * (expected[0] * expected[1] - size[0] * size[1])
    assert (padded is images) == (size == expected)
