"""What is particular to the real-time families."""

import pytest
import torch
import torch.nn.functional as F

from nets import create_model
from nets.errors import UserError
from nets.models.icnet import CascadeFusion, SummedPyramid

TRAINING_ONLY = {
    "bisenet": ({}, {"aux"}),
    "bisenetv2": ({}, {"aux"}),
    "ddrnet": ({}, {"aux"}),
    "fast_scnn": ({}, {"aux"}),
    "icnet": ({"backbone": "resnet18"}, {"aux"}),
    "pidnet": ({}, {"aux", "boundary"}),
    "stdc": ({}, {"aux", "detail"}),
}


@pytest.mark.parametrize("family", TRAINING_ONLY)
def test_outputs_of_training_are_at_the_images_size_and_only_where_asked_for(family):
    options, keys = TRAINING_ONLY[family]
    for aux in (True, False):
        with torch.device("meta"):
            network = create_model(family, bands=3, num_classes=5, aux=aux, **options)
            outputs = network.train()(torch.empty(2, 3, 65, 97))
            assert set(outputs) == ({"logits", *keys} if aux else {"logits"})
            assert set(network.eval()(torch.empty(2, 3, 65, 97))) == {"logits"}
        for key in keys - {"aux"} if aux else ():
            assert outputs[key].shape == (2, 1, 65, 97)


def test_bisenet_refuses_what_belongs_to_the_other_version():
    def build(**options: object):
        with torch.device("meta"):
            return create_model("bisenet", bands=3, num_classes=2, **options)

    with pytest.raises(UserError, match="expansion=4 is given with version=v1; it belongs to version=v2"):
        build(expansion=4)
    with pytest.raises(UserError, match="norm_gate=True is given with version=v2; it belongs to version=v1"):
        build(version="v2", norm_gate=True)
    with pytest.raises(UserError, match="backbone resnet18 is given with version=v2, which has its own"):
        build(version="v2", backbone="resnet18")
    with pytest.raises(UserError, match="3 numbers are needed"):
        build(version="v2", detail_channels=(64, 128))
    with pytest.raises(UserError, match="their last numbers must be equal"):
        build(version="v2", detail_channels=(64, 64, 64))
    assert build().blueprint["options"]["backbone"] == "resnet18"
    assert build(version="v2").blueprint["options"]["backbone"] == "bisenetv2"
    with torch.device("meta"):
        assert create_model("BiSeNet-V2", bands=3, num_classes=2).backbone.name == "bisenetv2"


def test_bisenet_takes_other_backbones():
    with torch.device("meta"):
        network = create_model("bisenet", bands=3, num_classes=2, backbone="convnext_atto", aux=True)
        assert network(torch.empty(2, 3, 64, 64))["logits"].shape == (2, 2, 64, 64)


def test_icnet_needs_a_backbone_that_runs_in_two_parts():
    for name in ("swin_t", "vgg16", "mobilenetv2_100"):
        with pytest.raises(UserError, match="cannot run in two parts; take a ResNet"):
            create_model("icnet", bands=3, num_classes=2, backbone=name)


@torch.inference_mode()
def test_icnet_as_the_paper_has_it():
    network = create_model("icnet", bands=3, num_classes=2, backbone="resnet18").eval()
    images = torch.randn(1, 3, 67, 62)
    body, branches = network.backbone.body, network.branches
    half = F.interpolate(images, scale_factor=0.5, mode="bilinear")
    half = F.max_pool2d(body.act1(body.bn1(body.conv1(half))), 3, 2, padding=1, ceil_mode=True)
    half = body.layer1(half)
    half = body.layer2[0](half)
    quarter = body.layer2[1](F.interpolate(half, scale_factor=0.5, mode="bilinear"))
    coarse = branches.coarse(branches.pyramid([body.layer4(body.layer3(quarter))]))
    middle, first = branches.fuse_middle(coarse, half)
    fused, _ = branches.fuse_fine(middle, branches.fine(images))
    expected = F.interpolate(network.classifier(fused), (67, 62), mode="bilinear")
    torch.testing.assert_close(network(images)["logits"], expected)
    assert torch.equal(first, F.interpolate(coarse, half.shape[-2:], mode="bilinear"))


@torch.inference_mode()
def test_icnet_fusions_and_pyramid():
    x = torch.randn(1, 4, 6, 6)
    grids = [F.interpolate(F.adaptive_avg_pool2d(x, s), (6, 6), mode="bilinear") for s in (1, 3)]
    torch.testing.assert_close(SummedPyramid((1, 3), align_corners=False)([x]), x + grids[0] + grids[1])
    fine = torch.randn(1, 3, 12, 12)
    for version in ("paper", "mmseg"):
        fusion = CascadeFusion(4, 3, 5, version=version, align_corners=False).eval()
        fused, guided = fusion(x, fine)
        enlarged = F.interpolate(x, (12, 12), mode="bilinear")
        torch.testing.assert_close(fused, (fusion.coarse(enlarged) + fusion.fine(fine)).relu())
        assert torch.equal(guided, fusion.coarse(enlarged) if version == "mmseg" else enlarged)
        assert (fusion.coarse(enlarged).min() < 0) == (version == "paper")


@pytest.mark.parametrize(("bands", "filters"), [(1, 15), (3, 13), (10, 13), (60, 13)])
def test_erfnet_keeps_thirteen_filters(bands, filters):
    with torch.device("meta"):
        network = create_model("erfnet", bands=bands, num_classes=2)
        assert network.backbone.encoder[0].conv.out_channels == filters
        assert network(torch.empty(1, bands, 65, 97))["logits"].shape == (1, 2, 65, 97)
    with pytest.raises(UserError, match="all but widths need one number less"):
        create_model("erfnet", bands=3, num_classes=2, blocks=(5,))


def test_fast_scnn_momentum():
    with torch.device("meta"):
        network = create_model("fast_scnn", bands=3, num_classes=2, norm_momentum=0.01, aux=True)
    found = {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert found == {0.01}


def test_ddrnet_branches_tell_each_other_after_every_part():
    for name, parts in (("23slim", 2), ("23", 2), ("39", 3)):
        with torch.device("meta"):
            network = create_model("ddrnet", bands=3, num_classes=2, backbone=name)
        stages = network.backbone.stages
        assert len(stages) == parts
        assert [len(stage.down) for stage in stages] == [1] * (parts - 1) + [2]
