"""Files of backbones in the naming of timm, OpenMMLab and their authors fill the backbones here."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.convnext import checkpoint_filter_fn as timm_convnext
from timm.models.swin_transformer import checkpoint_filter_fn as timm_swin

from nets import create_model
from nets.backbones.catalogue import create_backbone
from nets.backbones.normed import NormedBackbone
from nets.backbones.pretrained import load_pretrained, plain_name
from nets.backbones.twins import Twins
from nets.backbones.vit import ViT
from nets.importers.backbone_files import our_names
from nets.importers.openmmlab import load_openmmlab
from tests.backbone_file_helpers import fills, renamed
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
    with torch.device("meta"):
        network = create_model(family, bands=3, num_classes=19, **options)
        donor = timm.create_model(network.backbone.name).state_dict()
    given = {plain_name(name): tensor.shape for name, tensor in donor.items()}
    own = {plain_name(name): tensor.shape for name, tensor in network.backbone.state_dict().items()}
    assert own.items() <= given.items()
    assert sum(name.endswith("_weight") for name in own) == trained
    assert family == "segnet" or own["pre_logits_fc1_weight"] == (4096, 512, 7, 7)


def test_torchvisions_vgg_brings_its_fully_connected_layers():
    state = {
        "features.0.bias": torch.randn(64),
        "classifier.0.weight": torch.randn(4, 3 * 7 * 7),
        "classifier.0.bias": torch.randn(4),
        "classifier.3.weight": torch.randn(5, 4),
        "classifier.3.bias": torch.randn(5),
        "classifier.6.weight": torch.randn(2, 5),  # of ImageNet's classes
    }
    given = {plain_name(name): tensor for name, tensor in our_names("vgg16", state).items()}
    with torch.device("meta"):
        own = create_model("fcn", bands=3, num_classes=2, version="32s").backbone.state_dict()
    assert len(given) == 5 and given.keys() <= {plain_name(name) for name in own}
    pixels = torch.randn(1, 3, 7, 7)
    conv6 = F.conv2d(pixels, given["pre_logits_fc1_weight"], state["classifier.0.bias"])
    conv7 = F.conv2d(conv6, given["pre_logits_fc2_weight"], given["pre_logits_fc2_bias"])
    fc6 = F.linear(pixels.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"])
    fc7 = F.linear(fc6, state["classifier.3.weight"], state["classifier.3.bias"])
    torch.testing.assert_close(conv7.flatten(1), fc7)
