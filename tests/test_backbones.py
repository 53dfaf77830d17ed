"""The backbone catalogue: every row is what it says, and every decoder works with every backbone."""

import inspect
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nets import create_model, list_models
from nets.backbones.catalogue import can_dilate, create_backbone, describe_backbones, find_backbone
from nets.backbones.stem import find_stem
from nets.backbones.table import ENTRIES, PAPERS, SHORT_NAMES
from nets.backbones.timm_backbone import TimmBackbone
from nets.backbones.vit import VIT_SIZES, ViTSize
from nets.errors import UserError
from nets.registry import describe_option, get_builder
from tests.helpers import ROOT
from tests.test_networks import NO_GRADIENT, tensors

# The smallest of each family, where it is not the family's first row.
SMALLER = {
    "mobilenet_v3": "mobilenet_v3_small",
    "mobilenet_v4": "mobilenet_v4_small",
    "shufflenet_v2": "shufflenet_v2_x0_5",
}
SMALLEST = {entry.family: entry.name for entry in reversed(ENTRIES.values())} | SMALLER
# Families that take any backbone, with widths that keep the test quick.
NARROW = {
    "attention_unet": {"decoder_channels": (16, 8)},
    "knet": {"channels": 16, "kernel_channels": 16},
    "linknet": {},
    "manet": {"decoder_channels": (16, 8)},
    "unet": {"decoder_channels": (16, 8)},
    "unet_plusplus": {"decoder_channels": (16, 8)},
    "mask2former": {"channels": 32, "queries": 4, "pixel_layers": 1, "decoder_layers": 3, "feedforward": 8},
    "maskformer": {"channels": 32, "queries": 4, "decoder_layers": 1, "feedforward": 8},
    "pointrend": {"channels": 32, "pyramid_channels": 16, "point_channels": 8},
    "sem_fpn": {"channels": 32, "pyramid_channels": 16},
    "ocrnet": {"channels": 16, "key_channels": 8, "coarse_channels": 16},
}
DECODERS = [
    family
    for family in list_models()
    if describe_option(inspect.signature(get_builder(family)).parameters["backbone"]).text
    and family not in ("icnet", "eomt")  # a ResNet in two parts; DINO transformers only
]
# Parts of a backbone whose map a decoder does not look at, between two that it does: (decoder, family of the
# backbone) -> their names.
UNUSED = {
    ("lraspp", "hrnet"): ("backbone.stage4.1.fuse_layers.2.",),
    ("deeplab", "vit"): ("backbone.levels.1.",),
    ("deeplab", "mae"): ("backbone.neck.1.",),
    ("deeplab", "beit"): ("backbone.neck.1.",),
    ("deeplab", "hrnet"): ("backbone.stage4.1.fuse_layers.1.", "backbone.stage4.1.fuse_layers.2."),
}


class LeaveFills(TorchFunctionMode):
    """On "meta" there is nothing to fill; leaving it out saves a third of the time."""

    FILLS = frozenset({"normal_", "uniform_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_"})

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_meta(monkeypatch):
    """Build without memory; the layers' own starting values, which cost most of the time, are left out."""
    for kind in (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm):
        monkeypatch.setattr(kind, "reset_parameters", lambda self: None)
    with torch.device("meta"):
        yield


@pytest.fixture
def cheap_start(monkeypatch):
    """Fill, instead of drawing, the layers' own starting values, which timm's rules and ours draw anew."""

    def fill(layer: nn.Module) -> None:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(0.01)

    for kind in (nn.Linear, nn.Conv2d):
        monkeypatch.setattr(kind, "reset_parameters", fill)


def narrow(decoder: str) -> dict:
    return NARROW.get(decoder, {"channels": 16})


@pytest.mark.parametrize("name", ENTRIES)
def test_row_is_what_it_says_and_all_decoders_construct_on_it(name, on_meta):
    entry = ENTRIES[name]
    for decoder in DECODERS:
        with LeaveFills():
            network = create_model(decoder, bands=5, num_classes=3, backbone=name)
        assert network.blueprint["options"]["backbone"] == name
        assert find_stem(network.backbone)[1].in_channels == 5
        if decoder == "unet":  # it takes all the maps there are
            assert tuple(network.backbone.strides) == entry.strides
            assert len(network.backbone.channels) == len(entry.strides)


@pytest.mark.parametrize("family", PAPERS)
def test_maps_of_any_image(family, on_meta):
    entry = ENTRIES[SMALLEST[family]]
    backbone = create_backbone(entry.name, bands=4).eval()
    for size in ((32, 32), (65, 97)):
        maps = backbone(torch.empty(2, 4, *size))
        assert [each.shape[1] for each in maps] == backbone.channels
        for each, stride in zip(maps, backbone.strides, strict=True):
            assert all(
                math.floor(side / stride) <= found <= math.ceil(side / stride)
                for side, found in zip(size, each.shape[-2:], strict=True)
            )
    deepest = create_backbone(entry.name, bands=4, stages=2).eval()
    assert (deepest.channels, deepest.strides) == (backbone.channels[-2:], backbone.strides[-2:])
    assert [each.shape for each in deepest(torch.empty(2, 4, 65, 97))] == [each.shape for each in maps[-2:]]
    if entry.drop_path:
        dropping = create_backbone(entry.name, bands=4, drop_path=0.2)
        assert any(getattr(module, "drop_prob", 0) for module in dropping.modules())


@pytest.mark.parametrize("family", PAPERS)
def test_dilation_is_measured_or_refused(family):
    entry = ENTRIES[SMALLEST[family]]
    assert can_dilate(entry.name) == entry.dilates
    for output_stride in (8, 16):
        if entry.dilates:
            with torch.device("meta"):
                backbone = create_backbone(entry.name, bands=4, output_stride=output_stride).eval()
                maps = backbone(torch.empty(1, 4, 128, 128))
            assert [128 // each.shape[-1] for each in maps] == backbone.strides
            assert backbone.strides == [min(stride, output_stride) for stride in entry.strides]
        elif output_stride < entry.strides[-1]:
            if entry.library == "timm":  # it is timm that cannot, not our table alone
                with pytest.raises(UserError, match="cannot be dilated"), torch.device("meta"):
                    TimmBackbone(entry.network, bands=4, output_stride=output_stride)
            with pytest.raises(
                UserError, match=rf"{entry.name} .*cannot be dilated to output stride {output_stride}"
            ):
                create_backbone(entry.name, bands=4, output_stride=output_stride)


# A DeiT is a ViT.
@pytest.mark.parametrize("family", [family for family in PAPERS if family != "deit"])
def test_every_decoder_learns_on_the_smallest(family, cheap_start, monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "base", ViTSize(64, 12, 2, ""))  # the smallest of MAE and BEiT
    images = torch.randn(2, 4, 64, 64)
    for decoder in DECODERS:
        network = create_model(
            decoder, bands=4, num_classes=3, backbone=SMALLEST[family], **narrow(decoder)
        ).train()
        outputs = network(images)
        assert outputs["logits"].shape == (2, 3, 64, 64) and outputs["logits"].isfinite().all()
        sum(part.square().mean() for part in tensors(outputs)).backward()
        frozen = tuple(part for name, part in NO_GRADIENT if name == decoder)
        named = network.named_parameters()
        without = {name for name, p in named if p.grad is None and not name.startswith(frozen)}
        idle = UNUSED.get((decoder, family), ())
        unused = {name for name, _ in network.named_parameters() if name.startswith(idle)}
        assert without == unused, (decoder, sorted(without ^ unused)[:5])


@pytest.mark.parametrize(
    ("decoder", "options", "stages"),
    [
        ("fcn", {}, 1),
        ("fcn", {"aux": True}, 2),
        ("fcn", {"in_index": (-1, -3)}, 3),
        ("fcn", {"in_index": (0,)}, 5),
        ("fcn", {"aux_heads": ({"index": (2,)},)}, 5),
        ("pspnet", {}, 1),
        ("pspnet", {"aux": True}, 2),
        ("pspnet", {"in_index": 2}, 5),
        ("deeplab", {"version": "v3"}, 1),
        ("deeplab", {"version": "v3", "aux": True}, 2),
        ("deeplab", {"version": "v3", "in_index": 3}, 4),
        ("deeplab", {"aux": True}, 4),
    ],
)
def test_only_the_maps_that_are_read_are_asked_for(decoder, options, stages, on_meta):
    network = create_model(decoder, bands=3, num_classes=2, backbone="resnet18", **options)
    assert network.backbone.channels == [64, 64, 128, 256, 512][-stages:]


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
