"""UNet++, LinkNet, MA-Net, PAN, Attention U-Net and U2-Net join their maps as their papers say."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.decoders.joining import SCSE, JoinBlock
from nets.errors import UserError
from nets.importers.u2net_weights import read_u2net
from nets.models.attention_unet import AttentionGate
from nets.models.manet import FusionAttention, PositionAttention
from nets.models.pan import FeaturePyramidAttention, GlobalAttentionUpsample
from nets.models.u2net import HEIGHTS
from nets.models.unet_plusplus import NestedDecoder
from Structure import load_network
from tests.helpers import randomize


def test_a_block_enlarges_joins_and_convolves():
    block = JoinBlock(2, 3, 4, norm=False).eval()
    x, finer = torch.randn(1, 2, 3, 4), torch.randn(1, 3, 5, 7)  # an odd size was rounded up
    with torch.no_grad():
        joined = torch.cat([F.interpolate(x, size=(5, 7)), finer], dim=1)
        assert torch.equal(block(x, [finer]), block[1](block[0](joined)))
        alone = JoinBlock(2, 0, 4, enlarge="transposed").eval()
        assert alone(x).shape == (1, 4, 6, 8) and alone.up.weight.shape == (2, 4, 2, 2)


def test_scse_weighs_channels_and_pixels():
    layer = SCSE(32)
    x = torch.randn(2, 32, 4, 5)
    with torch.no_grad():
        for conv in (layer.channel[1], layer.channel[3], layer.pixel):
            conv.weight.zero_()
        layer.channel[3].bias.copy_(torch.linspace(-3, 3, 32))
        layer.pixel.bias.fill_(float("-inf"))
        torch.testing.assert_close(layer(x), x * torch.linspace(-3, 3, 32).sigmoid()[:, None, None])
    assert layer.channel[1].out_channels == 2


def test_unet_plusplus_joins_all_nodes_of_a_level():
    network = create_model("unet_plusplus", bands=1, num_classes=2, aux=True).eval()
    widths = [32, 64, 128, 256, 512]
    nodes = network.decoder.nodes
    assert sorted(nodes) == [f"{i}_{j}" for i in range(4) for j in range(1, 5 - i)]  # figure 1a
    for name, node in nodes.items():
        i, j = map(int, name.split("_"))
        assert node.up.weight.shape[:2] == (widths[i + 1], widths[i])
        assert node[0].conv.in_channels == (j + 1) * widths[i] and node[1].conv.out_channels == widths[i]
    assert [c.in_channels for c in network.column_classifiers] == [32] * 3
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_unet_plusplus_shares_its_smaller_networks():
    decoder = randomize(NestedDecoder((2, 3, 4), (2, 4, 8), (5, 6, 7), nodes="encoder").eval())
    maps = [torch.randn(1, 2 + i, 16 >> i, 16 >> i) for i in range(3)]
    with torch.no_grad():
        x, columns = decoder(maps)
        first = decoder.nodes["0_1"](maps[1], [maps[0]])
        coarse = decoder.nodes["1_1"](maps[2], [maps[1]])
        last = decoder.nodes["0_2"](coarse, [first, maps[0]])
        assert torch.equal(columns[0], first) and len(columns) == 1
        assert torch.equal(x, decoder.tail[0](last))
    assert first.shape[1] == 2 and coarse.shape[1] == 5 and last.shape[1] == 6 and x.shape == (1, 7, 32, 32)


def test_unet_plusplus_refuses_what_belongs_to_other_backbones():
    with pytest.raises(UserError, match="nodes=encoder is given with backbone none"):
        create_model("unet_plusplus", bands=3, num_classes=2, nodes="encoder")
    with pytest.raises(UserError, match="unet: backbone none takes none of center, scse, norm, enlarge"):
        create_model("unet", bands=3, num_classes=2, backbone="none", scse=True)


def test_linknet_adds_three_maps_of_the_encoder():
    network = create_model("linknet", bands=3, num_classes=2).eval()
    decoder = network.decoder
    seen = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda _m, _x, y: seen.append(tuple(y.shape[1:])))
    maps = network.backbone(torch.randn(1, 3, 64, 96))
    with torch.no_grad():
        logits = network.classifier(decoder(maps))
        assert seen == [(256, 4, 6), (128, 8, 12), (64, 16, 24), (64, 16, 24)]  # table 1
        assert logits.shape == (1, 2, 64, 96)
        for i, changes in ((0, True), (3, True)):
            others = [m + (j == i) for j, m in enumerate(maps)]
            assert torch.equal(network.classifier(decoder(others)), logits) != changes
    # The links of smp's decoder begin at the stem.
    smp = create_model("linknet", bands=3, num_classes=2, version="smp")
    assert len(smp.backbone.channels) == 5 and len(smp.decoder.blocks) == 5


def test_manet_attention():
    x = torch.randn(2, 6, 3, 4)
    layer = PositionAttention(6, 2, joint=False)
    with torch.no_grad():
        pixels = [conv(x).flatten(2) for conv in (layer.query, layer.key, layer.value)]
        weights = torch.einsum("bdn,bdm->bnm", *pixels[:2]).softmax(-1)
        gathered = torch.einsum("bnm,bcm->bcn", weights, pixels[2]).view_as(x)
        torch.testing.assert_close(layer(x), layer.project(x + gathered))
        layer.joint = True
        weights = torch.einsum("bdn,bdm->bnm", *pixels[:2]).flatten(1).softmax(-1).view(2, 12, 12)
        gathered = torch.einsum("bnm,bcm->bnc", weights, pixels[2]).reshape(x.shape)
        torch.testing.assert_close(layer(x), layer.project(x + gathered))


def test_manet_weighs_what_it_enlarges_by_both_maps():
    block = FusionAttention(4, 32, 5, norm=True, enlarge="nearest").eval()
    x, finer = torch.randn(1, 4, 2, 3), torch.randn(1, 32, 4, 6)
    with torch.no_grad():
        coarse = F.interpolate(block.reduce(x), scale_factor=2)
        weights = block.coarse_weights(coarse) + block.fine_weights(finer)
        expected = block.convs(torch.cat([coarse * weights, finer], dim=1))
        torch.testing.assert_close(block(x, [finer]), expected)


@pytest.mark.parametrize("pool", [False, True])
def test_pan_pyramid_of_any_size(pool):
    block = FeaturePyramidAttention(4, 6, 1 if pool else 6, pool=pool, align_corners=pool).eval()
    for size in ((2, 2), (1, 9), (16, 24)):
        with torch.no_grad():
            assert block(torch.randn(1, 4, *size)).isfinite().all()
    kernels = [(7, 7), (5, 5), (3, 3)]
    assert [h.conv.conv.kernel_size for h in block.halve] == kernels
    assert [c.conv.kernel_size for c in block.convs] == kernels
    assert {h.conv.conv.stride for h in block.halve} == {(1, 1) if pool else (2, 2)}
    with torch.no_grad():  # without weights of pixels the mean alone is left
        for conv in block.convs:
            conv.norm.weight.zero_()
        x = torch.randn(1, 4, 8, 8)
        torch.testing.assert_close(block(x), block.mean(x).expand(-1, -1, 8, 8))


def test_pan_deep_maps_weigh_the_channels_of_finer_ones():
    form = {"bias": False, "align_corners": False, "enlarge": "bilinear"}
    block = GlobalAttentionUpsample(3, 4, gate="relu", **form).eval()
    coarse, finer = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        weights = block.weights(coarse)
        assert weights.shape == (1, 4, 1, 1) and (weights >= 0).all()
        expected = F.interpolate(coarse, size=(4, 4), mode="bilinear") + block.reduce(finer) * weights
        torch.testing.assert_close(block(coarse, finer), expected)
    assert isinstance(GlobalAttentionUpsample(3, 4, gate="sigmoid", **form).weights[-1], nn.Sigmoid)
    network = create_model("pan", bands=3, num_classes=2, backbone="resnet18")
    assert network.backbone.strides == [4, 8, 16, 16] and len(network.decoder.blocks) == 3


def test_attention_gate_lets_through_what_both_maps_agree_on():
    gate = AttentionGate(3, 4).eval()
    skip, coarse = torch.randn(1, 3, 5, 8), torch.randn(1, 4, 2, 3)  # an odd height was rounded down
    with torch.no_grad():
        both = gate.own(skip) + F.interpolate(gate.gate(coarse), size=(2, 4), mode="bilinear")
        weights = F.interpolate(gate.weigh(both.relu()).sigmoid(), size=(5, 8), mode="bilinear")
        torch.testing.assert_close(gate(skip, coarse), gate.transform(skip * weights))
    assert gate.weigh.out_channels == 1 and gate.own.bias is None and gate.gate.bias is not None


def test_attention_unet_gates_all_skips_but_the_finest():
    network = create_model("attention_unet", bands=1, num_classes=3, width=16, aux=True)
    decoder = network.decoder
    assert network.backbone.channels == [16, 32, 64, 128, 256]  # the authors' feature_scale of 4
    assert [(g.own.in_channels, g.gate.in_channels) for g in decoder.gates] == [
        (128, 256),
        (64, 128),
        (32, 64),
    ]
    assert [b[0].conv.in_channels for b in decoder.blocks] == [384, 192, 96, 48]
    assert [s.in_channels for s in network.scores] == [16, 32, 64, 128]
    assert network.classifier.weight.shape == (3, 12, 1, 1)
    outputs = network.train()(torch.randn(2, 1, 64, 64))
    assert [tuple(x.shape) for x in outputs["aux"]] == [(2, 3, 64, 64)] * 4


def reference_block(state: dict, name: str, x: torch.Tensor, height: int, *, dilated: bool) -> torch.Tensor:
    """Return what a block of U2-Net gives, from its weights by the authors' names."""

    def conv(part: str, x: torch.Tensor, rate: int) -> torch.Tensor:
        own = {key: state[f"{name}.{part}.{key}"] for key in ("conv_s1.weight", "conv_s1.bias")}
        norm = [state[f"{name}.{part}.bn_s1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        x = F.conv2d(x, own["conv_s1.weight"], own["conv_s1.bias"], padding=rate, dilation=rate)
        return F.batch_norm(x, *norm).relu()

    rates = [2**i if dilated else 1 for i in range(height)]
    maps = [entered := conv("rebnconvin", x, 1)]
    for i in range(1, height):
        x = F.max_pool2d(maps[-1], 2, ceil_mode=True) if i > 1 and not dilated else maps[-1]
        maps.append(conv(f"rebnconv{i}", x, rates[i - 1]))
    x = conv(f"rebnconv{height}", maps[-1], rates[-1] if dilated else 2)
    for i in range(height - 1, 0, -1):
        x = F.interpolate(x, size=maps[i].shape[-2:], mode="bilinear")
        x = conv(f"rebnconv{i}d", torch.cat([x, maps[i]], dim=1), rates[i - 1])
    return x + entered


def reference_u2net(state: dict, x: torch.Tensor) -> torch.Tensor:
    """Return the joined scores of a U2-Net from its weights by the authors' names."""
    maps = []
    for i, height in enumerate(HEIGHTS):
        x = F.max_pool2d(x, 2, ceil_mode=True) if i else x
        x = reference_block(state, f"stage{i + 1}", x, height, dilated=i > 3)
        maps.append(x)
    for i in range(4, -1, -1):
        up = F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="bilinear")
        joined = torch.cat([up, maps[i]], dim=1)
        maps[i] = reference_block(state, f"stage{i + 1}d", joined, HEIGHTS[i], dilated=i > 3)
    sides = [
        F.conv2d(m, state[f"side{i}.weight"], state[f"side{i}.bias"], padding=1)
        for i, m in enumerate(maps, 1)
    ]
    size = maps[0].shape[-2:]
    sides = [F.interpolate(side, size=size, mode="bilinear") for side in sides]
    return F.conv2d(torch.cat(sides, dim=1), state["outconv.weight"], state["outconv.bias"])


def authors_names(network: nn.Module) -> dict:
    """Return the weights of our U2-Net by the authors' names."""
    state = {}
    for key, tensor in network.state_dict().items():
        key = key.replace(".conv.", ".conv_s1.").replace(".norm.", ".bn_s1.")
        key = re.sub(r"^scores\.(\d)", lambda m: f"side{int(m[1]) + 1}", key).replace(
            "classifier.", "outconv."
        )
        stage = re.match(r"(backbone|decoder)\.stages\.(\d)\.(\w+)(?:\.(\d))?\.(?=conv_s1|bn_s1)", key)
        if stage:
            side, number, part, place = stage.groups()
            names = {"entry": "in", "bottom": str(HEIGHTS[int(number)])}
            part = names.get(part) or f"{int(place) + 1}{'d' if part == 'up' else ''}"
            end = "d" if side == "decoder" else ""
            key = f"stage{int(number) + 1}{end}.rebnconv{part}.{key[stage.end() :]}"
        if key not in ("mean", "std"):
            state[key] = tensor
    return state


@pytest.mark.parametrize(("size", "classes"), [("small", 1), ("small", 3), ("full", 1)])
def test_the_authors_u2net(size, classes, tmp_path):
    network = randomize(create_model("u2net", bands=3, num_classes=classes, backbone=size))
    state = authors_names(network)
    assert len(state) == len(network.state_dict()) - 2
    torch.save({f"module.{key}": x for key, x in state.items()}, tmp_path / "u2net.pth")
    ours = load_network(tmp_path / "u2net.pth").double()
    assert ours.blueprint["options"]["backbone"] == size and ours.num_classes == max(classes, 2)
    images = torch.rand(1, 3, 65, 97, dtype=torch.float64) * 255
    with torch.inference_mode():
        outputs = ours(images)
        expected = reference_u2net({key: x.double() for key, x in state.items()}, ours.normalize(images))
    if classes == 1:
        assert ours.about["classes"]["names"] == ["background", "object"]
        assert not outputs["logits"][:, 0].any()
        torch.testing.assert_close(ours.probabilities(outputs)[:, 1:], expected.sigmoid(), rtol=0, atol=1e-9)
        outputs["logits"] = outputs["logits"][:, 1:]
    torch.testing.assert_close(outputs["logits"], expected, rtol=0, atol=1e-9 * expected.std())


def test_u2net_whose_joined_output_has_another_number_of_classes():
    state = authors_names(create_model("u2net", bands=3, num_classes=3, backbone="small"))
    state["outconv.weight"] = state["outconv.weight"][:1]
    with pytest.raises(UserError, match="3 classes in its side outputs"):
        read_u2net(state)


@pytest.mark.parametrize(("size", "count"), [("full", 44_009_869), ("small", 1_131_181)])
def test_u2net_has_the_authors_parameters(size, count):
    with torch.device("meta"):
        network = create_model("u2net", bands=3, num_classes=1, backbone=size)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_pan_pyramid_is_traced_for_every_size():
    block = FeaturePyramidAttention(2, 3, 3, pool=False, align_corners=False).eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    traced = torch.export.export(block, (torch.randn(1, 2, 18, 22),), dynamic_shapes=(sides,)).module()
    for size in ((2, 3), (5, 9)):
        x = torch.randn(1, 2, *size)
        with torch.no_grad():
            torch.testing.assert_close(traced(x), block(x))
