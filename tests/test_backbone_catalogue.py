"""The catalogue of backbones: names, listing, arguments, parameters, and where maps lie in the image."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from nets.backbones.catalogue import can_dilate, create_backbone, describe_backbones, find_backbone
from nets.backbones.table import ENTRIES, PAPERS, SHORT_NAMES
from nets.errors import UserError
from tests.helpers import ROOT


def test_names():
    for typed, found in {
        "resnet": "resnet50",
        "mobilenet": "mobilenetv2_100",
        "MobileNet-V2": "mobilenetv2_100",
        "mobilenetv2": "mobilenetv2_100",
        "vggnet": "vgg16",
        "inception": "inception_v3",
        "Inception V4": "inception_v4",
        "googlenet": "inception_v1",
        "xception": "xception65",
        "se_resnet50": "seresnet50",
        "ECA-ResNet50": "eca_resnet50",
        "cbam_resnet101": "cbam_resnet101",
        "resnext50": "resnext50_32x4d",
        "swin_t": "swin_tiny_patch4_window7_224",
        "swin_l_384": "swin_large_patch4_window12_384",
        "convnext_xl": "convnext_xlarge",
        "vit_base": "vit_base_patch16_224",
        "ViT-S": "vit_small_patch16_224",
        "DeiT-B": "deit_base_patch16_224",
        "mae": "mae_b",
        "beit_large": "beit_l",
        "hrnet_w18": "hrnet_w18",
        "hrnet_w18_small_v2": "hrnet_w18s",
        "mit_b3": "mit_b3",
        "resnest50d": "resnest50d",
    }.items():
        assert find_backbone(typed) == found
        assert find_backbone(found) == found  # a blueprint's name stays
    for name in (*ENTRIES, *SHORT_NAMES):
        assert find_backbone(find_backbone(name)) == find_backbone(name)
    with pytest.raises(UserError, match="no backbone is named 'resnet5'; nearest: resnet50"):
        find_backbone("resnet5")


def test_attention_and_size_arguments_reach_timm():
    with torch.device("meta"):
        count = {
            name: sum(p.numel() for p in create_backbone(name, bands=3).parameters())
            for name in ("resnet50", "se_resnet50", "eca_resnet50", "cbam_resnet50", "swin_t")
        }
    # CBAM: two matrices of 1/16 per block without biases, and a 7x7 convolution of 2 maps with batch norm.
    assert count["resnet50"] == 23_508_032  # 25,557,032 without the classifier
    assert count["se_resnet50"] - count["resnet50"] == 2_530_992  # 2.5 million: Hu et al., section 4
    # 5 weights per block of 256 to 1024 channels, 7 of 2048: the paper's k = |log2(C) / 2 + 1 / 2| to the
    # next odd number.
    assert count["eca_resnet50"] - count["resnet50"] == 13 * 5 + 3 * 7
    assert count["cbam_resnet50"] - count["resnet50"] == 2 * sum(
        n * width * width // 16 for n, width in ((3, 256), (4, 512), (6, 1024), (3, 2048))
    ) + 16 * (2 * 49 + 2)


def test_parameters_of_our_own_backbones():
    with torch.device("meta"):
        count = {
            name: sum(p.numel() for p in create_backbone(name, bands=3).parameters())
            for name in ("inception_v1", "shufflenet_v1", "shufflenet_v2", "hrnet_w18s", "hrnet_w48")
        }
    assert count["inception_v1"] == 6_624_904 - 1_025_000  # torchvision's table, without the classifier
    assert count["shufflenet_v2"] == 2_278_604 - 1_025_000 - 464 * 1024 - 2 * 1024  # and without conv5
    assert count["shufflenet_v1"] == 904_728  # 1.9 million with the classifier's 961,000: the authors' table
    assert (count["hrnet_w18s"], count["hrnet_w48"]) == (3_860_720, 65_325_120)  # OpenMMLab's checkpoints


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4"])
def test_inception_maps_lie_where_they_should(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, bands=1).eval()
    image = torch.randn(1, 1, 224, 256, requires_grad=True)
    for each, stride in zip(backbone(image), backbone.strides, strict=True):
        row, column = each.shape[2] // 2, each.shape[3] // 2
        (gradient,) = torch.autograd.grad(each[0, :, row, column].sum(), image, retain_graph=True)
        weight = gradient[0, 0].abs() / gradient.abs().sum()
        for axis, cell in ((0, row), (1, column)):
            seen = (weight.sum(1 - axis) * torch.arange(image.shape[2 + axis])).sum()
            assert abs(float(seen) - (cell + 0.5) * stride + 0.5) <= 0.5 * stride + 1, (stride, axis)


def test_other_networks_of_timm():
    with torch.device("meta"):
        assert create_backbone("deit_tiny_patch16_224", bands=3).strides == [4, 8, 16, 16]
        assert create_backbone("deit_tiny_patch16_224", bands=3, pyramid=False).strides == [16] * 4
        # timm's own of odd sizes: padded, and cropped again
        maps = create_backbone("dla34", bands=2).eval()(torch.empty(1, 2, 65, 97))
        assert maps[0].shape[-2:] == (33, 49)
    assert can_dilate("regnety_002") and not can_dilate("deit_tiny_patch16_224")
    with pytest.raises(UserError, match="accepts images of one size only"):
        create_backbone("mixer_s16_224", bands=3)
    with pytest.raises(UserError, match="has 4 feature maps, 5 are asked for"):
        create_backbone("convnext_t", bands=3, stages=5)
    with pytest.raises(UserError, match="vgg11 has no stochastic depth"):
        create_backbone("vgg11", bands=3, drop_path=0.1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "se_resnet50"])
def test_no_residual_branch_starts_at_zero(name):
    norms = [m for m in create_backbone(name, bands=3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(bool((norm.weight == 1).all()) for norm in norms)


def test_listing_is_quick_and_complete():
    code = (
        "import sys; from nets.backbones.table import describe_backbones as d; rows = d(); "
        "assert not {'torch', 'timm'} & set(sys.modules); print(len(rows))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(printed.stdout) == len(ENTRIES)
    for row in describe_backbones():
        assert "https://arxiv.org/abs/" in row["paper"] and row["strides"] and row["family"] in PAPERS
    assert set(SHORT_NAMES.values()) <= set(ENTRIES) and not set(SHORT_NAMES) & set(ENTRIES)
