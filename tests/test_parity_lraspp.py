"""LR-ASPP computes what MMSegmentation computes, in double precision; parts of it by hand."""

import pytest
import torch
import torch.nn.functional as F

from nets import create_model
from nets.backbones.configured import create_configured_backbone
from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.openmmlab import load_openmmlab
from nets.models.lraspp import GatedMap
from tests.helpers import changed, shared_parity
from tools.parity_runner import run


def test_reference():
    reference = shared_parity("mobilenetv3_lraspp")
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


@torch.inference_mode()
@pytest.mark.parametrize("size", [(4, 5), (49, 49), (66, 90)])
def test_the_gate_sees_large_windows(size):
    module = GatedMap(3, 2, align_corners=False).eval()
    x = torch.randn(1, 3, *size)
    windows = torch.stack(
        [
            torch.stack(
                [x[..., i : i + 49, j : j + 49].mean((2, 3)) for j in range(0, max(size[1] - 48, 1), 20)]
            )
            for i in range(0, max(size[0] - 48, 1), 16)
        ]
    )  # (rows, columns, B, C)
    gate = module.gate(windows.permute(2, 3, 0, 1)).sigmoid()
    gate = F.interpolate(gate, size, mode="bilinear")
    torch.testing.assert_close(module(x), module.conv(x) * gate, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_the_classifier_of_both_maps_is_the_papers_sum_of_two():
    network = create_model("lraspp", bands=3, num_classes=5, backbone="mobilenet_v3_small").eval()
    assert network.backbone.strides == [8, 16, 16]
    images = torch.randn(1, 3, 64, 96)
    low, _, deep = network.backbone(images)
    weight = network.classifier.weight
    deep = F.interpolate(
        F.conv2d(network.decoder.deep(deep), weight[:, :128]), low.shape[-2:], mode="bilinear"
    )
    summed = deep + F.conv2d(low, weight[:, 128:], network.classifier.bias)
    expected = F.interpolate(summed, (64, 96), mode="bilinear")
    torch.testing.assert_close(network(images)["logits"], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mobilenetv3_large_100", "tf_mobilenetv3_small_100"])
def test_stated_strides_of_mobilenet_v3(name):
    usual = create_configured_backbone(name, bands=2, options={"norm_eps": 1e-5}).eval()
    plain = create_configured_backbone(name, bands=2).eval()
    plain.load_state_dict(usual.state_dict())
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    x = torch.randn(1, 2, 65, 97)
    assert torch.equal(usual(x)[-1], plain(x)[-1])
    arch = "large" if "large" in name else "small"
    section = {"type": "MobileNetV3", "arch": arch, "norm_cfg": {"type": "BN"}}
    translated = translate_backbone(section | {"out_indices": (0, 1, 12)})
    assert translated.name == f"tf_mobilenetv3_{arch}_100"
    dilated = create_configured_backbone(name, bands=2, options=translated.options).eval()
    assert dilated.strides == ([2, 2, 8] if arch == "large" else [2, 4, 8])
    maps = dilated(torch.randn(1, 2, 64, 64))
    assert [64 // each.shape[-1] for each in maps] == dilated.strides
    assert [each.shape[1] for each in maps] == dilated.channels


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="gate=mean is given with version=mmseg"):
        create_model("lraspp", bands=3, num_classes=2, version="mmseg", gate="mean")
    with pytest.raises(UserError, match="give fewer branch_channels"), torch.device("meta"):
        create_model("lraspp", bands=3, num_classes=2, version="mmseg", branch_channels=(8,) * 5)
    for old, new, message in (
        ("arch='large'", "arch='large', reduction_factor=2", "reduction_factor=2; 1 is needed"),
        ("type='LRASPPHead'", "type='LRASPPHead', conv_cfg=dict(type='DCN')", "other convolutions"),
    ):
        with pytest.raises(UserError, match=message):
            load_openmmlab(changed(shared_parity("mobilenetv3_lraspp").checkpoint, old, new))
