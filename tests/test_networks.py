"""The contract of every registered network, written once."""

import importlib
import inspect
import re

import pytest
import torch

from nets import create_model, list_models
from nets.registry import get_builder, get_recipe
from tests.helpers import NO_GRADIENT, ROOT, tensors
from utils.checkpoint import network_state, write_checkpoint

# The smallest variant of each family.
SMALLEST = {
    **{
        name: {"backbone": "resnet18", "channels": 32}
        for name in (
            "ann",
            "apcnet",
            "ccnet",
            "danet",
            "dmnet",
            "dnlnet",
            "emanet",
            "encnet",
            "fastfcn",
            "gcnet",
            "isanet",
            "nonlocal_net",
        )
    },
    "pointrend": {"backbone": "resnet18", "channels": 32, "pyramid_channels": 32, "points": 64},
    "psanet": {"backbone": "resnet18", "channels": 32, "mask_size": (13, 13)},
    "attention_unet": {"width": 8, "aux": True},
    "bisenet": {"backbone": "resnet18", "aux": True},
    "cgnet": {"blocks": (2, 3)},
    "ddrnet": {"backbone": "23slim", "aux": True},
    "deeplab": {"backbone": "resnet18"},
    "dpt": {"backbone": "tiny", "channels": 32},
    "enet": {},
    "eomt": {
        "backbone": "dinov2_small",
        "queries": 10,
        "blocks": 2,
        "masked_blocks": 1,
        "backbone_options": {"embed_dim": 48, "depth": 3, "num_heads": 3},
    },
    "erfnet": {},
    "fast_scnn": {"aux": True},
    "fcn": {"backbone": "resnet18"},
    "hrnet": {"backbone": "w18s"},
    "icnet": {"backbone": "resnet18", "aux": True},
    "knet": {"backbone": "resnet18", "channels": 32, "kernel_channels": 16, "feedforward": 32, "aux": True},
    "linknet": {},
    "lraspp": {"backbone": "mobilenet_v3_small"},
    "manet": {"backbone": "resnet18"},
    "mask2former": {
        "backbone": "resnet18",
        "queries": 25,
        "channels": 64,
        "mask_channels": 32,
        "pixel_layers": 2,
        "pixel_feedforward": 64,
        "decoder_layers": 4,
        "feedforward": 64,
    },
    "maskformer": {
        "backbone": "resnet18",
        "queries": 25,
        "channels": 64,
        "mask_channels": 32,
        "pixel_layers": 1,
        "pixel_feedforward": 64,
        "decoder_layers": 2,
        "feedforward": 64,
    },
    "ocrnet": {"backbone": "w18s"},
    "pan": {"backbone": "resnet18", "channels": 32},
    "pidnet": {"backbone": "s", "aux": True},
    "pspnet": {"backbone": "resnet18"},
    "refinenet": {"backbone": "resnet18", "channels": (64,)},
    "segformer": {"backbone": "b0"},
    "segmenter": {"backbone": "tiny"},
    "segnet": {"backbone": "vgg11"},
    "segnext": {"backbone": "t"},
    "sem_fpn": {"backbone": "resnet18"},
    "semask": {"backbone": "swin_t"},
    "setr": {"backbone": "base", "decoder": "naive"},
    "stdc": {"backbone": "stdc1", "aux": True},
    "u2net": {"backbone": "small", "aux": True},
    "unet": {"backbone": "resnet18"},
    "unet_plusplus": {"backbone": "resnet18", "decoder_channels": (32, 16, 8), "aux": True},
    "upernet": {"backbone": "resnet18"},
    "vit_adapter": {"backbone": "t", "channels": 32},
}
# Where papers stand; few have no preprint.
PAPER = r"https://(arxiv\.org/abs|openaccess\.thecvf\.com|hszhao\.github\.io/papers|ieeexplore\.ieee\.org)/"
FAMILIES = list_models()


def build(family: str, *, bands: int = 3, num_classes: int = 4):
    return create_model(family, bands=bands, num_classes=num_classes, **SMALLEST[family])


def test_every_family_is_tested():
    assert set(SMALLEST) >= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_the_images_size_and_alone_in_any_layout_as_in_a_batch(family):
    # In float64, where rounding cannot hide that one image leaks into another.
    network = build(family, bands=4).eval().double()
    for size in ((64, 64), (65, 97)):
        images = torch.randn(2, 4, *size, dtype=torch.float64)
        with torch.inference_mode():
            outputs = network.to(memory_format=torch.contiguous_format)(images)
            last = images[1:].contiguous(memory_format=torch.channels_last)
            alone = network.to(memory_format=torch.channels_last)(last)
        assert outputs["logits"].shape == (2, 4, *size) and outputs["logits"].isfinite().all()
        torch.testing.assert_close(alone["logits"][0], outputs["logits"][1], rtol=1e-8, atol=1e-9)
        scores = network.probabilities(outputs)
        torch.testing.assert_close(scores.sum(1), torch.ones(2, *size, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("bands", "classes"), [(1, 1), (3, 3), (10, 10)])
def test_any_bands_and_classes(family, bands, classes):
    with torch.device("meta"):
        network = build(family, bands=bands, num_classes=classes).eval()
        assert network(torch.empty(1, bands, 64, 64))["logits"].shape == (1, classes, 64, 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns_and_bf16_is_finite(family):
    network = build(family).train()
    images = torch.randn(2, 3, 64, 64)
    images[0, :, :9] = float("nan")  # no data
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images)
    parts = tensors(outputs)
    assert all(part.isfinite().all() for part in parts)
    assert all(part.shape == (2, 4, 64, 64) for part in [outputs["logits"], *outputs.get("aux", [])])
    sum((part.float() * torch.randn_like(part, dtype=torch.float32)).sum() for part in parts).backward()
    # Not the size: a residual branch that ends in a norm of weight zero passes a gradient of zero at first.
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not [name for name in without if not any(f == family and part in name for f, part in NO_GRADIENT)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoint_alone_rebuilds_the_network(family, tmp_path):
    import Structure

    network = build(family, bands=2).eval()
    network.mean.fill_(3.0)
    content = {"blueprint": network.blueprint, "state_dict": network_state(network), "classes": {}}
    write_checkpoint(tmp_path / "x.pth", content)
    images = torch.randn(1, 2, 64, 64)
    rebuilt = Structure.load_network(tmp_path / "x.pth")
    assert not rebuilt.training and rebuilt.blueprint == network.blueprint
    with torch.inference_mode():
        assert torch.equal(rebuilt(images)["logits"], network(images)["logits"])


@pytest.mark.parametrize("family", FAMILIES)
def test_documented(family):
    module = importlib.import_module(f"nets.models.{family}")
    assert re.search(PAPER, module.__doc__) and "Deviations" in module.__doc__
    assert inspect.getdoc(get_builder(family))
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__ and "forward" in vars(kind):
            assert kind.forward.__doc__.startswith("Map "), kind
    for readme in ("README.md", "README.zh-CN.md"):
        assert f"`{family}`" in (ROOT / readme).read_text(encoding="utf-8")
    recipe = get_recipe(family)
    assert {"plain", "paper"} <= set(recipe) and "lr" in recipe["paper"]


def test_invalid_pixels_become_the_mean_of_every_band():
    network = build("unet").eval()
    network.mean.copy_(torch.tensor([10.0, 20.0, 30.0]))
    network.std.copy_(torch.tensor([1.0, 2.0, 4.0]))
    images = torch.randn(1, 3, 8, 8) + 15
    spoiled = images.clone()
    spoiled[0, 1, 2, 3] = float("nan")
    spoiled[0, 0, 5, 5] = float("inf")
    normalized = network.normalize(spoiled)
    assert (normalized[0, :, 2, 3] == 0).all() and (normalized[0, :, 5, 5] == 0).all()
    rest = torch.ones(8, 8, dtype=torch.bool)
    rest[2, 3] = rest[5, 5] = False
    expected = (images - network.mean[:, None, None]) / network.std[:, None, None]
    assert torch.equal(normalized[0][:, rest], expected[0][:, rest])
