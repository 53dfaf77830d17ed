"""FCN-8s, SegNet, ENet and RefineNet have their papers' stages, and their own layers do what they say."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.backbones.pretrained import plain_name
from nets.decoders.skip_scores import BilinearUp
from nets.errors import UserError
from nets.layers.init import reinitialize
from nets.layers.unpool import max_unpool
from nets.models.enet import Downsampling
from nets.models.refinenet import ChainedResidualPooling, RefineNetDecoder, ResidualConvUnit
from nets.models.segnet import SegNetDecoder
from nets.registry import get_recipe
from tests.helpers import randomize

SKIPS = {"32s": ((4096,), (32,)), "16s": ((512, 4096), (16, 32)), "8s": ((256, 512, 4096), (8, 16, 32))}


def build(family: str, *, bands: int = 3, num_classes: int = 19, **options):
    with torch.device("meta"):
        return create_model(family, bands=bands, num_classes=num_classes, **options).eval()


def shapes(network: nn.Module, size: tuple[int, int], kinds: type | tuple[type, ...]) -> list[tuple]:
    """Return (channels, height, width) of what each module of some kinds gives, in order."""
    found = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(
                lambda _module, _inputs, output: found.append(tuple(output.shape[1:]))
            )
    logits = network(torch.empty(1, network.bands, *size, device="meta"))["logits"]
    assert logits.shape == (1, network.num_classes, *size)
    return found


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def with_values(family: str, **options) -> nn.Module:
    """Return a network whose scores are not zero, as some start, in float64."""
    network = create_model(family, bands=3, num_classes=4, **options).eval().double()
    return randomize(network)


# ---- FCN


@pytest.mark.parametrize("version", SKIPS)
def test_fcn_scores_the_papers_maps(version):
    widths, strides = SKIPS[version]
    network = build("fcn", num_classes=21, version=version)
    assert (tuple(network.backbone.channels), tuple(network.backbone.strides)) == (widths, strides)
    found = shapes(network, (512, 384), (nn.MaxPool2d, nn.ConvTranspose2d))
    pools = [(64, 256, 192), (128, 128, 96), (256, 64, 48), (512, 32, 24), (512, 16, 12)]
    doubled = [(21, 512 // stride, 384 // stride) for stride in reversed(strides[:-1])]
    assert found == pools + doubled
    mlp = network.backbone.pre_logits
    assert mlp.fc1.weight.shape == (4096, 512, 7, 7) and mlp.fc2.weight.shape == (4096, 4096, 1, 1)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    # Table 1 of the paper states 134 M; scores and enlargements are what the header adds.
    assert count(network.backbone) == 134_260_544
    scores = sum(width * 21 + 21 for width in widths)
    assert count(network.decoder) == scores + len(doubled) * 16 * 21**2


@pytest.mark.parametrize(("version", "backbone"), [("8s", "vgg11"), ("16s", "vgg11_bn"), ("32s", "vgg11")])
def test_fcn_of_any_size(version, backbone):
    network = with_values("fcn", version=version, backbone=backbone, channels=16)
    for size in ((32, 32), (65, 97)):
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.inference_mode():
            logits = network(images)["logits"]
            assert logits.shape == (2, 4, *size) and logits.std() > 1e-3
            torch.testing.assert_close(network(images[1:])["logits"], logits[1:])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (31, 63), (32, 64), (64, 96)])
def test_fcn_is_aligned_with_the_image(row, column):
    # A cell of a map is a square of the image, from the upper left corner on, at any size.
    network = create_model("fcn", bands=1, num_classes=2, version="8s", backbone="vgg11", channels=2).eval()
    with torch.no_grad():
        for layer in network.backbone.modules():
            if isinstance(layer, nn.Conv2d):  # passes the first channel on
                layer.weight.zero_()
                layer.weight[:, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1.0
        image = torch.zeros(1, 1, 65, 97)
        image[..., row, column] = 1.0
        for feature, stride in zip(network.backbone(image), (8, 16, 32), strict=True):
            assert feature.shape[-2:] == (-(-65 // stride), -(-97 // stride))
            assert feature[0, 0].nonzero().tolist() == [[row // stride, column // stride]]


def test_fcn_starts_from_scores_of_zero_and_scales_at_once():
    plain = create_model("fcn", bands=3, num_classes=4, version="8s", backbone="vgg11", channels=8)
    assert not any(parameter.any() for score in plain.decoder.scores for parameter in score.parameters())
    assert plain.decoder.scales == (1.0, 1.0, 1.0)
    assert build("fcn", version="8s", at_once=True).decoder.scales == (1e-4, 1e-2, 1.0)
    assert build("fcn", version="16s", at_once=True).decoder.scales == (1e-2, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"version": "8s", "backbone": "resnet50"},
            "resnet50 is given with version=8s.*allowed: vgg11, vgg13",
        ),
        (
            {"version": "32s", "num_convs": 1},
            "num_convs=1 is given with version=32s; it belongs to version=dil",
        ),
        (
            {"version": "16s", "aux": True},
            "aux=True is given with version=16s; it belongs to version=dilated",
        ),
        ({"at_once": True}, "at_once=True is given with version=dilated; it belongs to version=8s or 16s"),
        (
            {"version": "32s", "at_once": True},
            "at_once=True is given with version=32s; it belongs to version=8s",
        ),
    ],
)
def test_fcn_refuses_what_belongs_to_another_version(options, message):
    with pytest.raises(UserError, match=message):
        build("fcn", **options)


def test_fcn_recipe_of_the_papers_networks():
    recipe = get_recipe("fcn")
    assert {conditions["version"] for conditions, _ in recipe["paper_where"]} == set(SKIPS)
    # The auxiliary head of the dilated network would be refused.
    assert all(changes["model_options"]["aux"] is False for _, changes in recipe["paper_where"])


def test_bilinear_start():
    up = BilinearUp(2).double()
    ramp = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij"))[None].double()
    with torch.no_grad():
        enlarged = up(ramp)
    # The centres of fine cells lie a quarter of a coarse cell beside the centres of coarse ones.
    rows, columns = torch.arange(10) / 2 - 0.25, torch.arange(14) / 2 - 0.25
    inner = (0, slice(None), slice(1, -1), slice(1, -1))
    expected = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).double()
    torch.testing.assert_close(enlarged[inner], expected[:, 1:-1, 1:-1], rtol=0, atol=1e-12)
    noise = torch.randn(1, 2, 5, 7, dtype=torch.float64)
    bilinear = F.interpolate(noise, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up(noise), bilinear)
    assert up.weight.requires_grad and up.weight.shape == (2, 2, 4, 4) and not up.weight[0, 1].any()
    started = up.weight.clone()
    reinitialize(nn.Sequential(up), "normal")
    assert torch.equal(up.weight, started)


@pytest.mark.parametrize(
    ("family", "options", "trained"),
    [
        ("fcn", {"version": "8s"}, 13 + 2),
        ("fcn", {"version": "32s", "backbone": "vgg11_bn"}, 8 + 8 + 2),
        ("segnet", {}, 26),
        ("segnet", {"backbone": "vgg13", "batch_norm": False}, 10),
    ],
)
def test_weights_of_imagenets_vgg_fit(family, options, trained):
    network = build(family, bands=3, **options)
    with torch.device("meta"):
        donor = timm.create_model(network.backbone.name).state_dict()
    given = {plain_name(name): tensor.shape for name, tensor in donor.items()}
    own = {plain_name(name): tensor.shape for name, tensor in network.backbone.state_dict().items()}
    assert own.items() <= given.items()
    assert sum(name.endswith("_weight") for name in own) == trained
    assert family == "segnet" or own["pre_logits_fc1_weight"] == (4096, 512, 7, 7)


# ---- SegNet and unpooling


def test_unpooling_puts_values_back():
    before = torch.randn(2, 3, 5, 7)
    pooled, indices = F.max_pool2d(before, 2, return_indices=True)
    back = max_unpool(pooled, before)
    assert torch.equal(back, F.max_unpool2d(pooled, indices, 2, output_size=before.shape[-2:]))
    kept = back != 0
    assert torch.equal(back[kept], before[kept]) and kept.sum() == pooled.numel()
    assert not back[..., -1, :].any() and not back[..., -1].any()  # no 2x2 cell covers them


def test_unpooling_is_deterministic_and_passes_gradients():
    before, values = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2, requires_grad=True)
    weight = torch.randn(1, 2, 4, 4)
    torch.use_deterministic_algorithms(True)
    try:
        (max_unpool(values, before) * weight).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    _, indices = F.max_pool2d(before, 2, return_indices=True)
    assert torch.equal(values.grad.flatten(2), weight.flatten(2).gather(2, indices.flatten(2)))


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
    assert torch.equal(unpooled[0], max_unpool(deepest, before[1]))


# ---- ENet

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


# ---- RefineNet


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
