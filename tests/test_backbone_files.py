"""Files of backbones in the naming of OpenMMLab and of their authors fill the backbones here."""

import re

import pytest
import timm
import torch
from timm.models.convnext import checkpoint_filter_fn as timm_convnext
from timm.models.swin_transformer import checkpoint_filter_fn as timm_swin

from nets import create_model
from nets.backbones.catalogue import create_backbone
from nets.backbones.normed import NormedBackbone
from nets.backbones.pretrained import load_pretrained
from nets.backbones.twins import Twins
from nets.backbones.vit import ViT
from nets.importers.authors_backbones import without_biases
from nets.importers.openmmlab import load_openmmlab
from nets.models.stdc import BLOCKS
from tests.helpers import randomize, shared_parity

# OpenMMLab's checkpoint -> its network's backbone here, or the family that has it.
OPENMMLAB = {
    "segformer_b0": ("mit_b0", "backbone."),
    "segnext_t": ("mscan_t", "backbone."),
    "upernet_swin-t": ("swin_t", "backbone."),
    "upernet_convnext-tiny": ("convnext_t", "backbone."),
    "poolformer_s12": ("poolformer_s12", "backbone."),
    "twins_pcpvt-s_fpn": ("twins_pcpvt_s", "backbone."),
    "twins_svt-s_fpn": ("twins_svt_s", "backbone."),
    "stdc1": ("stdc", "backbone.backbone."),
    "ddrnet_23-slim": ("ddrnet", "backbone."),
    "pidnet-s": ("pidnet", "backbone."),
}


def build(name: str) -> torch.nn.Module:
    if name in ("stdc", "ddrnet", "pidnet"):
        return create_model(name, bands=3, num_classes=2).backbone
    if name.startswith(("swin", "convnext", "poolformer")):
        return NormedBackbone(create_backbone(name, bands=3).name, bands=3)
    return create_backbone(name, bands=3)


@pytest.mark.parametrize("reference", OPENMMLAB)
def test_openmmlabs_own_backbone_files(reference, tmp_path):
    checkpoint = shared_parity(reference).checkpoint
    name, prefix = OPENMMLAB[reference]
    state = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    torch.save({"state_dict": {**state, "head.fc.weight": torch.zeros(1)}}, tmp_path / "x.pth")
    backbone = build(name)
    assert load_pretrained(backbone, tmp_path / "x.pth") == []
    expected = load_openmmlab(checkpoint).backbone.state_dict()
    for key, value in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, expected[key]), key


def renamed(network: torch.nn.Module, patterns: list[tuple[str, object]]) -> dict[str, torch.Tensor]:
    """Return a network's weights with the first pattern that matches replaced, and what lies behind them."""
    state = {}
    for key, value in network.state_dict().items():
        pattern, new = next((pair for pair in patterns if re.match(pair[0], key)), ("$", ""))
        state[re.sub(pattern, new, key)] = value
    return state | {"linear.weight": torch.zeros(10, 4), "linear.bias": torch.zeros(10)}


def fills(backbone: torch.nn.Module, state: dict, empty: torch.nn.Module, path) -> list[str]:
    """Load a file into another backbone, which must then have the weights of the first."""
    torch.save({"state_dict": state}, path)
    left_out = load_pretrained(empty, path)
    said = tuple(line.split(" ")[0].split(":")[0] for line in left_out)
    for key, value in empty.state_dict().items():
        if key not in said and not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, backbone.state_dict()[key], rtol=0, atol=1e-6)
    return left_out


def numbered(pattern: str, conv: str, norm: str) -> list[tuple[str, str]]:
    return [(rf"{pattern}\.conv\.", conv), (rf"{pattern}\.norm\.", norm)]


BLOCK = [
    (r"(.*)\.convs\.(\d)\.conv\.", lambda m: f"{m[1]}.conv{int(m[2]) + 1}."),
    (r"(.*)\.convs\.(\d)\.norm\.", lambda m: f"{m[1]}.bn{int(m[2]) + 1}."),
    *numbered(r"(.*)\.shortcut", r"\1.downsample.0.", r"\1.downsample.1."),
]
STEM = [
    (r"stem\.([01])\.conv\.", lambda m: f"conv1.{3 * int(m[1])}."),
    (r"stem\.([01])\.norm\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
]


def in_turn(network: torch.nn.Module, first: list, second: list) -> dict[str, torch.Tensor]:
    """Return weights renamed twice: parts of the network, then the layers in its blocks."""
    state = renamed(network, first)
    result = {}
    for key, value in state.items():
        pattern, new = next((pair for pair in second if re.match(pair[0], key)), ("$", ""))
        result[re.sub(pattern, new, key)] = value
    return result


def with_biases(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return DDRNet's or PIDNet's weights with the biases that the authors' stems have."""
    for i in (0, 3):
        bias = torch.randn(len(state[f"conv1.{i}.weight"]))
        state[f"conv1.{i}.bias"] = bias
        state[f"conv1.{i + 1}.running_mean"] = state[f"conv1.{i + 1}.running_mean"] + bias
    return state


@pytest.mark.parametrize("name", ["stdc1", "stdc2"])
@pytest.mark.parametrize("bottleneck", ["cat", "add"])
def test_stdc_of_the_authors(name, bottleneck, tmp_path):
    options = {"bands": 3, "num_classes": 2, "backbone": name, "bottleneck": bottleneck}
    options["widths"] = (8, 8, 32, 64, 128)
    one, two = (create_model("stdc", **options).backbone for _ in range(2))
    places = ["0", "1", *(f"{i + 2}.{j}" for i, count in enumerate(BLOCKS[name]) for j in range(count))]
    patterns = []
    for i, place in enumerate(places):
        ours = rf"stages\.{place}".replace("..", r"\.")
        theirs = f"features.{i}"
        patterns += [
            (rf"{ours}\.convs\.(\d)\.conv\.", rf"{theirs}.conv_list.\1.conv."),
            (rf"{ours}\.convs\.(\d)\.norm\.", rf"{theirs}.conv_list.\1.bn."),
            *numbered(rf"{ours}\.down", f"{theirs}.avd_layer.0.", f"{theirs}.avd_layer.1."),
            *numbered(rf"{ours}\.skip\.0", f"{theirs}.skip.0.", f"{theirs}.skip.1."),
            *numbered(rf"{ours}\.skip\.1", f"{theirs}.skip.2.", f"{theirs}.skip.3."),
            *numbered(ours, f"{theirs}.conv.", f"{theirs}.bn."),
        ]
    assert fills(one, renamed(randomize(one), patterns), two, tmp_path / "x.pth") == []


@pytest.mark.parametrize("size", ["23slim", "39"])
def test_ddrnet_of_the_authors(size, tmp_path):
    one, two = (
        create_model("ddrnet", bands=3, num_classes=2, backbone=size, width=8).backbone for _ in range(2)
    )
    patterns = [*STEM, (r"stem\.([24])\.", lambda m: f"layer{int(m[1]) // 2}.")]
    for i, part in enumerate(("3_1", "3_2", "4") if size == "39" else ("3", "4")):
        patterns += [
            (rf"stages\.{i}\.deep\.", f"layer{part}."),
            (rf"stages\.{i}\.fine\.", f"layer{part}_."),
            *numbered(rf"stages\.{i}\.compress", f"compression{part}.0.", f"compression{part}.1."),
            *numbered(rf"stages\.{i}\.down\.0", f"down{part}.0.", f"down{part}.1."),
            *numbered(rf"stages\.{i}\.down\.1", f"down{part}.3.", f"down{part}.4."),
        ]
    patterns += [(r"deep_last\.", "layer5."), (r"fine_last\.", "layer5_.")]
    state = with_biases(in_turn(randomize(one), patterns, BLOCK))
    # A file for classification has no pyramid aggregation.
    left_out = fills(one, {k: v for k, v in state.items() if "pyramid" not in k}, two, tmp_path / "x.pth")
    assert left_out and all(line.startswith("pyramid.") for line in left_out)


@pytest.mark.parametrize("size", ["s", "l"])
def test_pidnet_of_the_authors(size, tmp_path):
    one, two = (
        create_model("pidnet", bands=3, num_classes=2, backbone=size, width=8).backbone for _ in range(2)
    )
    patterns = [*STEM, (r"stem\.([24])\.", lambda m: f"layer{int(m[1]) // 2}.")]
    for i in range(3):
        single = i == 0 or (i == 1 and size == "l")
        patterns += [
            (rf"deep\.{i}\.", f"layer{i + 3}."),
            (rf"fine\.{i}\.", f"layer{i + 3}_."),
            (rf"boundary\.{i}\.", f"layer{i + 3}_d." if single else f"layer{i + 3}_d.0."),
            *numbered(rf"compress\.{i}", f"compression{i + 3}.0.", f"compression{i + 3}.1."),
            *numbered(rf"tell\.{i}", f"diff{i + 3}.0.", f"diff{i + 3}.1."),
            *numbered(rf"guide\.{i}\.fine", f"pag{i + 3}.f_x.0.", f"pag{i + 3}.f_x.1."),
            *numbered(rf"guide\.{i}\.deep", f"pag{i + 3}.f_y.0.", f"pag{i + 3}.f_y.1."),
        ]
    patterns += [
        *numbered(r"fuse\.fine", "dfm.conv_p.0.", "dfm.conv_p.1."),
        *numbered(r"fuse\.deep", "dfm.conv_i.0.", "dfm.conv_i.1."),
        *numbered(r"fuse\.conv", "dfm.conv.2.", "dfm.conv.0."),
        *numbered(r"pyramid\.project", "spp.scale0.2.", "spp.scale0.0."),
        (r"pyramid\.scales\.(\d)\.1\.conv\.", lambda m: f"spp.scale{int(m[1]) + 1}.3."),
        (r"pyramid\.scales\.(\d)\.1\.norm\.", lambda m: f"spp.scale{int(m[1]) + 1}.1."),
        (r"pyramid\.convs\.(\d)\.conv\.", lambda m: f"spp.process{int(m[1]) + 1}.2."),
        (r"pyramid\.convs\.(\d)\.norm\.", lambda m: f"spp.process{int(m[1]) + 1}.0."),
        *numbered(r"pyramid\.convs", "spp.scale_process.2.", "spp.scale_process.0."),
        *numbered(r"pyramid\.join", "spp.compression.2.", "spp.compression.0."),
        *numbered(r"pyramid\.shortcut", "spp.shortcut.2.", "spp.shortcut.0."),
    ]
    state = with_biases(in_turn(randomize(one), patterns, BLOCK))
    assert fills(one, state, two, tmp_path / "x.pth") == []


@torch.inference_mode()
def test_a_bias_in_front_of_a_batch_norm_goes_into_its_mean():
    conv, norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
    layer = randomize(torch.nn.Sequential(conv, norm)).double().eval()
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    wanted = layer(images)
    state = {f"backbone.conv1.{key}": value for key, value in layer.state_dict().items()}
    state = without_biases(state)
    assert "backbone.conv1.0.bias" not in state
    conv.bias.zero_()
    norm.running_mean.copy_(state["backbone.conv1.1.running_mean"])
    torch.testing.assert_close(layer(images), wanted)


def test_mit_of_the_authors(tmp_path):
    one, two = (create_backbone("mit_b0", bands=3) for _ in range(2))
    names = {"project": "attn.proj", "reduce": "attn.sr", "norm": "attn.norm"}
    patterns = [
        (r"stages\.(\d)\.embed\.", lambda m: f"patch_embed{int(m[1]) + 1}.proj."),
        (r"stages\.(\d)\.embed_norm\.", lambda m: f"patch_embed{int(m[1]) + 1}.norm."),
        (r"stages\.(\d)\.norm\.", lambda m: f"norm{int(m[1]) + 1}."),
        (r"stages\.(\d)\.blocks\.(\d)\.attention\.qkv\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}.attn.qkv."),
        (
            r"stages\.(\d)\.blocks\.(\d)\.attention\.(\w+)\.",
            lambda m: f"block{int(m[1]) + 1}.{m[2]}.{names[m[3]]}.",
        ),
        (r"stages\.(\d)\.blocks\.(\d)\.mlp\.expand\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}.mlp.fc1."),
        (
            r"stages\.(\d)\.blocks\.(\d)\.mlp\.mix\.",
            lambda m: f"block{int(m[1]) + 1}.{m[2]}.mlp.dwconv.dwconv.",
        ),
        (r"stages\.(\d)\.blocks\.(\d)\.mlp\.contract\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}.mlp.fc2."),
        (r"stages\.(\d)\.blocks\.(\d)\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}."),
    ]
    state = {}
    for key, value in renamed(randomize(one), patterns).items():
        if ".attn.qkv." in key:
            third = len(value) // 3
            state[key.replace("qkv", "q")], state[key.replace("qkv", "kv")] = value[:third], value[third:]
        else:
            state[key] = value
    assert fills(one, state, two, tmp_path / "x.pth") == []


def test_swin_and_convnext_of_the_authors(tmp_path):
    donor = randomize(timm.create_model("swin_tiny_patch4_window7_224"))
    pattern = (r"layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.")
    state = renamed(donor, [pattern, (r"head\.fc\.", "head.")])
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    # timm reads such files too.
    read = timm_swin({"model": {k: v for k, v in state.items() if not k.startswith("linear.")}}, donor)
    assert all(torch.equal(read[key], value) for key, value in donor.state_dict().items() if key in read)
    torch.save({"model": state}, tmp_path / "x.pth")
    backbone = create_backbone("swin_t", bands=3)
    assert load_pretrained(backbone, tmp_path / "x.pth") == []
    own = backbone.body.layers_2.downsample.reduction.weight
    assert torch.equal(own, donor.layers[2].downsample.reduction.weight)

    donor = randomize(timm.create_model("convnext_tiny"))
    patterns = [
        (r"stem\.", "downsample_layers.0."),
        (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"stages\.(\d)\.blocks\.(\d)\.conv_dw\.", r"stages.\1.\2.dwconv."),
        (r"stages\.(\d)\.blocks\.(\d)\.mlp\.fc(\d)\.", r"stages.\1.\2.pwconv\3."),
        (r"stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"head\.norm\.", "norm."),
        (r"head\.fc\.", "head."),
    ]
    state = renamed(donor, patterns)
    read = timm_convnext({k: v for k, v in state.items() if not k.startswith("linear.")}, donor)
    assert all(torch.equal(read[key], value) for key, value in donor.state_dict().items())
    torch.save({"model": state}, tmp_path / "x.pth")
    backbone = create_backbone("convnext_t", bands=3)
    assert load_pretrained(backbone, tmp_path / "x.pth") == []
    assert torch.equal(
        backbone.body.stages_3.blocks[2].mlp.fc2.weight, donor.stages[3].blocks[2].mlp.fc2.weight
    )


@pytest.mark.parametrize("name", ["twins_pcpvt_small", "twins_svt_small"])
def test_twins_of_the_authors_is_timms(name, tmp_path):
    donor = randomize(timm.create_model(name))
    torch.save(donor.state_dict(), tmp_path / "x.pth")
    backbone = Twins(name, bands=3)
    left_out = load_pretrained(backbone, tmp_path / "x.pth")
    assert all(line.startswith("norms.") for line in left_out)  # of dense prediction


BEIT = {
    "relative_positions": True,
    "position_embedding": False,
    "layer_scale": 0.1,
    "qkv_bias": "query_value",
}


@pytest.mark.parametrize("options", [{}, BEIT], ids=["vit", "beit"])
def test_plain_transformers_of_openmmlab(options, tmp_path):
    shape = {"bands": 3, "blocks": (1,), "image_size": (64, 64), "class_token": True, "depth": 2}
    one, two = (ViT("tiny", **shape, **options) for _ in range(2))
    patterns = [
        (r"body\.patch_embed\.proj\.", "patch_embed.projection."),
        (r"body\.blocks\.(\d)\.norm(\d)\.", r"layers.\1.ln\2."),
        (r"body\.blocks\.(\d)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
        (r"body\.blocks\.(\d)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
        (r"body\.blocks\.(\d)\.ls(\d)\.gamma", r"layers.\1.gamma_\2"),
        (r"body\.blocks\.(\d)\.attn\.qkv\.([qv])_bias", r"layers.\1.attn.\2_bias"),
        (r"body\.blocks\.", "layers."),
        (r"body\.", ""),
    ]
    if not options:
        patterns = [
            (r"body\.blocks\.(\d)\.attn\.qkv\.", r"layers.\1.attn.attn.in_proj_"),
            (r"body\.blocks\.(\d)\.attn\.proj\.", r"layers.\1.attn.attn.out_proj."),
            *patterns,
        ]
    assert fills(one, renamed(randomize(one), patterns), two, tmp_path / "x.pth") == []
