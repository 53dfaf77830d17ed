"""RefineNet has its paper's blocks, and its own layers do what they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.models.refinenet import (
    ChainedResidualPooling,
    RefineBlock,
    RefineNetDecoder,
    ResidualConvUnit,
)
from tests.meta_networks import build, count, shapes


def test_refinenet_stages():
    network = build("refinenet", num_classes=21, backbone="resnet101")
    blocks = shapes(network, (512, 384), tuple({type(b) for b in network.decoder.blocks}))
    assert blocks == [(512, 16, 12), (256, 32, 24), (256, 64, 48), (256, 128, 96)]
    for i, block in enumerate(network.decoder.blocks):
        units = [sum(isinstance(m, ResidualConvUnit) for m in part) for part in (block.adapt, block.output)]
        assert units == [2, 3] and len(block.pool.convs) == 4
        assert (block.fuse is None) == (i == 0)
    assert network.classifier.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("backbone", "pool_blocks", "parameters", "published"),
    [
        ("resnet50", 4, 99_060_309, None),
        ("resnet101", 4, 118_052_437, 118),
        ("resnet152", 4, 133_696_085, None),
        ("resnet101", 2, 109_794_901, None),
    ],
)
def test_refinenet_parameters(backbone, pool_blocks, parameters, published):
    network = build("refinenet", num_classes=21, backbone=backbone, pool_blocks=pool_blocks)
    assert count(network) == parameters
    assert published is None or round(parameters / 1e6) == published


def test_refinenet_pooling_is_chained():
    pool = ChainedResidualPooling(1, 2).double()
    with torch.no_grad():
        for conv in pool.convs:
            conv.weight.zero_()
            conv.weight[0, 0, 1, 1] = 0.5
        x = torch.randn(1, 1, 12, 12, dtype=torch.float64)
        once = 0.5 * F.max_pool2d(x.relu(), 5, stride=1, padding=2)
        twice = 0.5 * F.max_pool2d(once, 5, stride=1, padding=2)
        torch.testing.assert_close(pool(x), x.relu() + once + twice)


def test_refinenet_units_add_to_their_input():
    unit, x = ResidualConvUnit(4), torch.randn(1, 4, 5, 6)
    inner = F.conv2d(x.relu(), unit.conv1.weight, unit.conv1.bias, padding=1).relu()
    torch.testing.assert_close(unit(x), x + F.conv2d(inner, unit.conv2.weight, padding=1))


def test_refinenet_adapts_fuses_by_a_sum_and_pools():
    block = RefineBlock(4, 4, 6, 1, align_corners=False)
    block.adapt, block.pool, block.output = nn.Tanh(), nn.ReLU(), nn.Sigmoid()
    own, coarser = torch.randn(1, 4, 6, 8), torch.randn(1, 6, 3, 4)
    of_own, of_coarser = (
        F.conv2d(x, conv.weight, padding=1) for x, conv in zip((own.tanh(), coarser), block.fuse, strict=True)
    )
    fused = of_own + F.interpolate(of_coarser, (6, 8), mode="bilinear")
    torch.testing.assert_close(block(own, coarser), fused.relu().sigmoid())


def test_refinenet_drops_values_of_wide_maps_alone():
    decoder = RefineNetDecoder(
        (256, 512, 1024, 2048), (8,), pool_blocks=1, dropout=0.9, align_corners=False
    ).train()
    seen = []
    decoder.dropout.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    decoder([torch.randn(1, channels, 4, 4) for channels in (256, 512, 1024, 2048)])
    assert seen == [2048, 1024, 8] and isinstance(decoder.dropout, nn.Dropout)


def test_refinenet_starts_small():
    network = create_model("refinenet", bands=3, num_classes=2, backbone="resnet18", channels=(64,))
    deviations = [m.weight.std().item() for m in network.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert all(deviation == pytest.approx(0.01, rel=0.05) for deviation in deviations)
