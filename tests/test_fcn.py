"""FCN with skips has its papers' maps, aligned with the image, and starts from scores of zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.decoders.skip_scores import BilinearUp, SkipScores
from nets.errors import UserError
from nets.layers.init import reinitialize
from nets.registry import get_recipe
from tests.helpers import randomize
from tests.meta_networks import build, count, shapes

SKIPS = {"32s": ((4096,), (32,)), "16s": ((512, 4096), (16, 32)), "8s": ((256, 512, 4096), (8, 16, 32))}


def with_values(family: str, **options) -> nn.Module:
    """Return a network whose scores are not zero, as some start, in float64."""
    network = create_model(family, bands=3, num_classes=4, **options).eval().double()
    return randomize(network)


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


def test_fcn_adds_the_scores_of_all_maps():
    decoder = randomize(SkipScores([3, 4, 5], 2, stride=8, scales=(0.5, 0.25))).double()
    for up in decoder.ups:
        up.reset_parameters()
    fine, middle, coarse = (
        torch.randn(1, width, *size, dtype=torch.float64)
        for width, size in ((3, (9, 13)), (4, (5, 7)), (5, (3, 4)))
    )
    of_fine, of_middle, of_coarse = decoder.scores
    enlarged = F.interpolate(of_coarse(coarse), scale_factor=2, mode="bilinear")[..., :5, :7]
    enlarged = F.interpolate(enlarged + of_middle(0.25 * middle), scale_factor=2, mode="bilinear")
    expected = enlarged[..., :9, :13] + of_fine(0.5 * fine)
    found = decoder([fine, middle, coarse])
    torch.testing.assert_close(found, F.interpolate(expected, scale_factor=8, mode="bilinear"))


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
