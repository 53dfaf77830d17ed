"""Every row of the table of backbones is what it says, and every decoder works with every backbone."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nets import create_model, list_models
from nets.backbones.catalogue import can_dilate, create_backbone
from nets.backbones.stem import find_stem
from nets.backbones.table import ENTRIES, PAPERS
from nets.backbones.timm_backbone import TimmBackbone
from nets.backbones.vit import VIT_SIZES, ViTSize
from nets.errors import UserError
from nets.registry import describe_option, get_builder
from tests.helpers import NO_GRADIENT, tensors

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
