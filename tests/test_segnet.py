"""SegNet mirrors VGG-16, and its unpooling puts values back where the encoder's maxima were."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets.layers.unpool import MaxUnpool, find_maxima
from nets.models.segnet import SegNetDecoder
from tests.meta_networks import build, count, shapes


def test_unpooling_puts_values_back():
    before = torch.randn(2, 3, 5, 7)
    pooled, indices = F.max_pool2d(before, 2, return_indices=True)
    back = MaxUnpool()(pooled, before)
    assert torch.equal(back, F.max_unpool2d(pooled, indices, 2, output_size=before.shape[-2:]))
    kept = back != 0
    assert torch.equal(back[kept], before[kept]) and kept.sum() == pooled.numel()
    assert not back[..., -1, :].any() and not back[..., -1].any()  # no 2x2 cell covers them


def test_unpooling_is_deterministic_and_passes_gradients():
    before, values = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2, requires_grad=True)
    weight = torch.randn(1, 2, 4, 4)
    torch.use_deterministic_algorithms(True)
    try:
        (MaxUnpool()(values, before) * weight).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(values.grad.flatten(2), weight.flatten(2).gather(2, find_maxima(before).flatten(2)))


def test_segnet_mirrors_vgg16():
    network = build("segnet", num_classes=12)
    found = shapes(network, (360, 480), nn.Conv2d)
    down = [(64, 360, 480)] * 2 + [(128, 180, 240)] * 2 + [(256, 90, 120)] * 3 + [(512, 45, 60)] * 3
    down += [(512, 22, 30)] * 3
    up = [(512, 22, 30)] * 3 + [(512, 45, 60)] * 2 + [(256, 45, 60)] + [(256, 90, 120)] * 2
    up += [(128, 90, 120), (128, 180, 240), (64, 180, 240), (64, 360, 480), (12, 360, 480)]
    assert len(found) == 26 and found == down + up
    kernels = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    assert kernels == 14_710_464 + 14_708_736 + 64 * 9 * 12
    assert count(network) == 29_446_220 and count(network) / 1e6 == pytest.approx(29.46, abs=0.02)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_segnet_with_and_without_norms(batch_norm):
    network = build("segnet", backbone="vgg19", batch_norm=batch_norm)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (16 + 15 if batch_norm else 0)
    assert network(torch.empty(1, 3, 33, 65, device="meta"))["logits"].shape == (1, 19, 33, 65)


def test_segnet_decoder_uses_the_encoders_maxima():
    decoder = SegNetDecoder([4, 6], (1, 2), norm=False)
    before = [torch.randn(1, 4, 9, 12), torch.randn(1, 6, 4, 6)]
    unpooled = []
    decoder.stages[0].register_forward_pre_hook(lambda _module, inputs: unpooled.append(inputs[0]))
    deepest = F.max_pool2d(before[1], 2)
    assert decoder([*before, deepest]).shape == (1, 4, 9, 12)
    assert torch.equal(unpooled[0], MaxUnpool()(deepest, before[1]))
