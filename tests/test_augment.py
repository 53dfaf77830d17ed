"""Test-time augmentation: every copy comes back to its place."""

import numpy as np
import pytest
import torch

from tests.scene_helpers import Bands
from utils.inference.augment import augmented, passes
from utils.inference.whole import predictor

CPU = torch.device("cpu")


def test_passes_are_all_combinations():
    assert len(passes(())) == 1
    assert len(passes(("flip",))) == 2 and len(passes(("rot",))) == 4 and len(passes(("flip", "rot"))) == 8
    assert [one.scale for one in passes((0.75, 1.0, 1.25))] == [1, 0.75, 1.25]
    assert len(passes(("flip", "rot", 0.75, 1.25))) == 24
    assert passes(("flip", 2.0))[0] == (0, False, 1.0)


@pytest.mark.parametrize("words", [("flip",), ("rot",), ("flip", "rot")])
@pytest.mark.parametrize("size", [(40, 40), (33, 70)])
def test_a_pointwise_network_gives_the_same(words, size):
    torch.manual_seed(0)
    images = torch.rand(2, 3, *size) * 100
    plain = predictor(Bands().eval(), CPU)(images)
    assert (predictor(Bands().eval(), CPU, words)(images) - plain).abs().max() < 1e-6


def test_the_eight_symmetries_all_differ_and_are_averaged():
    seen = []

    def predict(images):
        seen.append(images.clone())
        return images

    image = torch.rand(1, 1, 5, 7)
    assert torch.allclose(augmented(predict, ("flip", "rot"))(image), image)
    assert len({tuple(copy.flatten().tolist()) + tuple(copy.shape) for copy in seen}) == 8
    weighted = augmented(lambda images: images * len(images[0, 0]), ("rot",))  # 5 or 7 rows
    assert torch.allclose(weighted(image), image * 6)


def test_sizes_and_invalid_pixels():
    seen = []
    network = Bands().eval()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images = torch.full((1, 3, 64, 96), 50.0)
    images[:, 1, :, :40] = 80
    images[..., :20, :] = torch.nan
    result = predictor(network, CPU, (0.5, 1.5))(images)
    assert [tuple(one.shape[-2:]) for one in seen] == [(64, 96), (32, 48), (96, 144)]
    assert all(torch.isnan(one[..., : int(one.shape[-2] * 0.3), :]).all() for one in seen)
    assert all(one[torch.isfinite(one)].min() >= 49.9 for one in seen)  # no dark rim
    assert (result.sum(1) - 1).abs().max() < 1e-5
    assert np.array_equal(result[0, :, 40].argmax(0)[[0, 38, 60]], [1, 1, 0])
