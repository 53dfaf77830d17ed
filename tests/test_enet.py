"""ENet has its paper's table of bottlenecks, for images of any bands."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets.models.enet import Bottleneck, Downsampling, Upsampling
from tests.meta_networks import build, count, shapes

# Table 1 for 512x512, bottleneck by bottleneck, and the convolution in the middle: kernel and dilation.
CONTEXT = [
    ((3, 3), 1),
    ((3, 3), 2),
    ((1, 5), 1),
    ((3, 3), 4),
    ((3, 3), 1),
    ((3, 3), 8),
    ((1, 5), 1),
    ((3, 3), 16),
]


def test_enet_has_the_papers_table():
    network = build("enet", num_classes=20)
    names = {"InitialBlock", "Bottleneck", "Downsampling", "Upsampling"}
    kinds = tuple({type(m) for m in network.modules() if type(m).__name__ in names})
    found = shapes(network, (512, 512), (*kinds, nn.ConvTranspose2d))
    stage4, stage5 = [(16, 128, 128), *[(64, 128, 128)] * 3], [(4, 256, 256), *[(16, 256, 256)] * 2]
    assert found == [
        (16, 256, 256),
        *[(64, 128, 128)] * 5,
        *[(128, 64, 64)] * 17,
        *stage4,  # with the transposed convolution inside 4.0
        *stage5,  # and inside 5.0
        (20, 512, 512),
    ]


def test_enet_context_and_dropout():
    network = build("enet")
    encoder = network.backbone
    for blocks in (encoder.stage2[1:], encoder.stage3):
        middles = []
        for block in blocks:
            middle = block.branch[2]
            last = middle[-1] if isinstance(middle, nn.Sequential) else middle
            middles.append((last.kernel_size, last.dilation[0]))
        assert middles == CONTEXT
    rates = [
        [m.p for m in part.modules() if isinstance(m, nn.Dropout2d)] for part in (encoder, network.decoder)
    ]
    assert rates == [[0.01] * 5 + [0.1] * 17, [0.1] * 5]
    convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [m for m in convolutions if m.bias is not None] == [network.decoder.classifier]
    assert not [m for m in network.modules() if isinstance(m, nn.ReLU)]


def test_enet_parameters():
    network = build("enet", num_classes=20)
    assert count(network) == 364_019 and count(network.backbone) == 337_519
    assert count(network.decoder) == 25_200 + 64 * 20 + 20
    # The authors' biases, their decoder without PReLU, and the encoder's own classifier: the paper's 0.37 M.
    theirs = count(network) + 693 - 336 + 128 * 20 + 20
    assert theirs == 366_956 and round(theirs / 1e6, 2) == 0.37
    assert int(29.46 / 0.37) == 79  # abstract: 79 times fewer than SegNet


@pytest.mark.parametrize(("bands", "filters"), [(1, 15), (2, 14), (3, 13), (4, 13), (10, 13), (60, 13)])
def test_enet_initial_block_of_any_bands(bands, filters):
    network = build("enet", bands=bands)
    assert network.backbone.initial.conv.out_channels == filters
    assert network.backbone.channels[0] == filters + bands
    assert network(torch.empty(1, bands, 65, 97, device="meta"))["logits"].shape == (1, 19, 65, 97)


def test_enet_pools_beside_the_branch():
    block = Downsampling(3, 8, dropout=0.0).eval()
    with torch.no_grad():
        block.branch[5].weight.zero_()  # the norm that ends the branch
        x = torch.rand(1, 3, 5, 6)
        result = block(x)
    assert torch.equal(result[:, :3], F.max_pool2d(x, 2)) and not result[:, 3:].any()


def test_enet_adds_the_branch_to_what_it_was_given():
    block = Bottleneck(8, dilation=2, dropout=0.0).eval()
    x = torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        assert torch.equal(block(x), F.prelu(x + block.branch(x), block.act.weight))


def test_enet_unpools_beside_the_branch():
    block = Upsampling(8, 4, dropout=0.0).eval()
    x, pooled = torch.randn(1, 8, 3, 2), torch.randn(1, 4, 6, 5)
    maxima = F.max_pool2d(pooled, 2, return_indices=True)[1]
    with torch.no_grad():
        side = F.max_unpool2d(block.project(x), maxima, 2, output_size=(6, 5))
        branch = F.pad(block.branch(x), (0, 1, 0, 0), mode="replicate")
        assert torch.equal(block(x, pooled), F.prelu(side + branch, block.act.weight))
