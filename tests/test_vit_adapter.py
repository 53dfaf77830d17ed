"""ViT-Adapter computes what its authors' code computes; its checkpoints are known by their tensors alone."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import nn

from nets import create_model
from nets.backbones.adapter import ConvFeedForward
from nets.backbones.pretrained import load_pretrained
from nets.backbones.stem import adapt_stem
from nets.backbones.vit_adapter import attend_in_windows
from nets.errors import UserError
from nets.importers.foreign import is_known, load_foreign
from nets.importers.openmmlab import load_openmmlab, read_tensors
from tests.helpers import randomize, shared_parity, unnormalised
from tools.parity_runner import run
from utils.checkpoint import load_matching

# Our names -> the authors', for checkpoints of every size without their code.
EXTRACTORS = {"0": "extractor", "1": "extra_extractors.0", "2": "extra_extractors.1"}
THEIRS = [
    (r"backbone\.prior\.stem\.(\d)\.conv\.", lambda m: f"backbone.spm.stem.{3 * int(m[1])}."),
    (r"backbone\.prior\.stem\.(\d)\.norm\.", lambda m: f"backbone.spm.stem.{3 * int(m[1]) + 1}."),
    (r"backbone\.prior\.halvings\.(\d)\.conv\.", lambda m: f"backbone.spm.conv{int(m[1]) + 2}.0."),
    (r"backbone\.prior\.halvings\.(\d)\.norm\.", lambda m: f"backbone.spm.conv{int(m[1]) + 2}.1."),
    (r"backbone\.prior\.project\.(\d)\.", lambda m: f"backbone.spm.fc{int(m[1]) + 1}."),
    (r"backbone\.norms\.(\d)\.", lambda m: f"backbone.norm{int(m[1]) + 1}."),
    (r"backbone\.level_embedding", "backbone.level_embed"),
    (r"backbone\.body\.blocks\.(\d+)\.ls(\d)\.gamma", r"backbone.blocks.\1.gamma\2"),
    (r"backbone\.body\.", "backbone."),
    (
        r"backbone\.interactions\.(\d)\.extractors\.(\d)\.",
        lambda m: f"backbone.interactions.{m[1]}.{EXTRACTORS[m[2]]}.",
    ),
    (r"decoder\.context\.pyramid\.branches\.", "decode_head.psp_modules."),
    (r"decoder\.context\.join\.", "decode_head.bottleneck."),
    (r"decoder\.laterals\.", "decode_head.lateral_convs."),
    (r"decoder\.smooth\.", "decode_head.fpn_convs."),
    (r"decoder\.fuse\.", "decode_head.fpn_bottleneck."),
    (r"classifier\.", "decode_head.conv_seg."),
    (r"aux_heads\.0\.decoder\.", "auxiliary_head."),
    (r"aux_heads\.0\.classifier\.", "auxiliary_head.conv_seg."),
]
PARTS = {
    "attention.offsets.": "attn.sampling_offsets.",
    "attention.weights.": "attn.attention_weights.",
    "attention.value.": "attn.value_proj.",
    "attention.project.": "attn.output_proj.",
    "token_norm.": "feat_norm.",
    "ffn.expand.": "ffn.fc1.",
    "ffn.mix.": "ffn.dwconv.dwconv.",
    "ffn.contract.": "ffn.fc2.",
}
TEXT = """
model = dict(
    pretrained='deit_tiny.pth',
    backbone=dict(type='ViTAdapter', patch_size=16, embed_dim=192, depth=12, num_heads=3, mlp_ratio=4,
        drop_path_rate=0.2, conv_inplane=32, n_points=2, deform_num_heads=3, deform_ratio=0.5,
        interaction_indexes=[[0, 0], [1, 4], [5, 11]], add_vit_feature=False, use_extra_extractor=False,
        with_cffn=False, layer_scale=False, img_size=96, pretrain_size=96, with_cp=True,
        window_attn=[True, False, False, True, False, False, True, False, False, True, False, False],
        window_size=[2, None, None, 3, None, None, 2, None, None, 2, None, None]),
    decode_head=dict(type='UPerHead', in_channels=[192, 192, 192, 192], in_index=[0, 1, 2, 3], channels=16,
        pool_scales=(1, 2), dropout_ratio=0.3, num_classes=3, norm_cfg=dict(type='SyncBN')))
img_norm_cfg = dict(mean=[1., 2., 3.], std=[5., 6., 7.], to_rgb=True)
"""
OPTIONS = {
    "interactions": (1, 4, 7),
    "add_patches": False,
    "extra_extractors": False,
    "ffn_ratio": 0.0,
    "layer_scale": False,
    "image_size": 96,
    "windows": (2, 0, 0, 3, 0, 0, 2, 0, 0, 2, 0, 0),
    "prior_channels": 32,
    "points": 2,
    "heads": 3,
    "value_ratio": 0.5,
    "channels": 16,
    "pool_scales": (1, 2),
}


def theirs(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the network's weights by the authors' names, with the class token's position that they keep."""
    state = {}
    for name, tensor in network.state_dict().items():
        pattern, new = next((pair for pair in THEIRS if re.match(pair[0], name)), ("$", ""))
        renamed = re.sub(pattern, new, name)
        for own, other in PARTS.items():
            if ".interactions." in renamed:
                renamed = renamed.replace(own, other)
        if not renamed.startswith("backbone."):
            renamed = renamed.replace(".norm.", ".bn.")
        if name == "backbone.body.pos_embed":
            tensor = torch.cat([tensor[:, :1], tensor], dim=1)
        state[renamed] = tensor
    return {name: tensor for name, tensor in state.items() if name not in ("mean", "std")}


def test_reference():
    reference = shared_parity("vitadapter_upernet_deit-t")
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


@pytest.mark.parametrize(
    ("size", "weights", "bands"),
    [("t", "deit", 3), ("s", "deit", 4), ("b", "deit", 3), ("b", "augreg", 3), ("l", "augreg", 3)],
)
def test_every_size_is_known_by_its_tensors(size, weights, bands):
    with torch.device("meta"):
        options = {"backbone": size, "weights": weights, "aux": True}
        network = create_model("vit_adapter", bands=bands, num_classes=7, **options)
        state = theirs(network)
    assert is_known({"meta": {}, "state_dict": state})
    blueprint, found, facts = read_tensors(state)
    own = {name: tensor.shape for name, tensor in network.state_dict().items() if name not in ("mean", "std")}
    assert {name: tensor.shape for name, tensor in found.items()} == own
    assert {key: blueprint["options"][key] for key in ("backbone", "weights")} == {
        "backbone": size,
        "weights": weights,
    }
    with torch.device("meta"):
        rebuilt = create_model(blueprint["name"], **blueprint["options"])
    one, two = rebuilt.backbone, network.backbone
    same = ("name", "grid", "runs", "add_patches", "windows", "channels", "strides")
    assert all(getattr(one, each) == getattr(two, each) for each in same)
    for mine, other in zip(one.interactions, two.interactions, strict=True):
        for part, wanted in ((mine.injector, other.injector), (mine.extractors[0], other.extractors[0])):
            assert (part.attention.heads, part.attention.points) == (
                wanted.attention.heads,
                wanted.attention.points,
            )
    # AugReg's weights of 384 pixels want bands of -1 to 1.
    assert facts.get("std") == ([127.5] * 3 if one.grid == (24, 24) else None)
    heads = {"t": 3, "s": 6, "b": 12, "l": 16}[size]
    assert one.body.blocks[0].attn.num_heads == heads and len(one.body.blocks) == (24 if size == "l" else 12)


def test_the_authors_configuration_is_read():
    network = create_model("vit_adapter", bands=3, num_classes=3, **OPTIONS).eval()
    for interaction in network.backbone.interactions:
        nn.init.ones_(interaction.injector.gamma)
    imported = load_openmmlab({"meta": {"config": TEXT}, "state_dict": theirs(network)})
    options = imported.blueprint["options"]
    assert {key: options[key] for key in OPTIONS} == OPTIONS
    assert (options["drop_path"], options["dropout"]) == (0.2, 0.3) and imported.mean.tolist() == [1, 2, 3]
    images = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert torch.equal(unnormalised(imported)(images)["logits"], network(images)["logits"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patch_size=16", "patch_size=14", "patch_size=14; 16 is needed"),
        ("depth=12", "depth=11", "sizes"),
        ("[1, 4]", "[2, 4]", "every block once"),
        ("[5, 11]", "[5, 10]", "every block once"),
        ("layer_scale=False", "layer_scale=False, freeze_vit=True", "freeze_vit=True"),
        ("pool_scales", "in_index=[0, 1], pool_scales", "all four maps"),
        ("model = dict(", "model = dict(neck=dict(type='FPN'),", "neck 'FPN'"),
    ],
)
def test_what_is_not_here_is_said(old, new, message):
    assert old in TEXT
    text = TEXT.replace("in_index=[0, 1, 2, 3], ", "") if "in_index" in new else TEXT
    with pytest.raises(UserError, match=message):
        load_openmmlab({"meta": {"config": text.replace(old, new)}, "state_dict": {}})


def test_tensors_that_tell_no_network_of_the_authors_are_refused():
    state = dict(shared_parity("vitadapter_upernet_deit-t").checkpoint["state_dict"])
    blocks = {key: tensor for key, tensor in state.items() if not key.startswith("backbone.blocks.11.")}
    with pytest.raises(UserError, match="11 blocks, 4 interactions"):
        load_foreign({"state_dict": blocks})
    narrow = state | {"backbone.patch_embed.proj.weight": torch.zeros(200, 3, 16, 16)}
    with pytest.raises(UserError, match="width 200 is not here; 192, 384, 768, 1024"):
        load_foreign({"state_dict": narrow})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "l", "weights": "deit"}, "DeiT has no size l"),
        ({"interactions": (3, 3, 3)}, "sum is 12"),
        ({"interactions": (6, 6)}, "it must be four"),
        ({"windows": (7, 7)}, "one per block, 12"),
        ({"heads": 5}, "must divide the width 192"),
        ({"image_size": 230}, "multiple of 16"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message), torch.device("meta"):
        create_model("vit_adapter", bands=3, num_classes=2, **options)


@torch.inference_mode()
def test_attention_in_windows_by_hand():
    attention, (h, w), window = Attention(8, num_heads=2, qkv_bias=True).double().eval(), (5, 7), 3
    x = torch.randn(2, h * w, 8, dtype=torch.float64)
    qkv = attention.qkv(x).reshape(2, h, w, 3, 2, 4)
    qkv = F.pad(qkv.flatten(3), (0, 0, 0, 2, 0, 1)).reshape(2, 6, 9, 3, 2, 4)
    expected = torch.zeros(2, 6, 9, 8, dtype=torch.float64)
    for top in range(0, 6, window):
        for left in range(0, 9, window):
            part = qkv[:, top : top + window, left : left + window].reshape(2, 9, 3, 2, 4)
            for head in range(2):
                q, k, v = (part[:, :, i, head] for i in range(3))
                mixed = (q @ k.transpose(1, 2) / 2).softmax(-1) @ v
                columns = slice(4 * head, 4 * head + 4)
                expected[:, top : top + window, left : left + window, columns] = mixed.reshape(2, 3, 3, 4)
    expected = attention.proj(expected[:, :h, :w].flatten(1, 2))
    torch.testing.assert_close(attend_in_windows(attention, x, (h, w), window), expected)
    # A window as large as the map is attention all over it.
    torch.testing.assert_close(attend_in_windows(attention, x[:, :25], (5, 5), 5), attention(x[:, :25]))


@torch.inference_mode()
def test_feed_forward_mixes_each_map_by_itself():
    layer, sizes = ConvFeedForward(6, 4), [(4, 6), (2, 3), (1, 2)]
    tokens = torch.randn(1, 24 + 6 + 2, 6)
    found, start = layer(tokens, sizes), 0
    for h, w in sizes:
        part = layer.expand(tokens[:, start : start + h * w]).transpose(1, 2).reshape(1, 4, h, w)
        wanted = layer.contract(F.gelu(layer.mix(part)).flatten(2).transpose(1, 2))
        torch.testing.assert_close(found[:, start : start + h * w], wanted)
        start += h * w


@torch.inference_mode()
def test_images_of_any_size_are_padded_and_the_maps_cropped():
    backbone = create_model("vit_adapter", bands=2, num_classes=2).eval().backbone
    image = torch.randn(1, 2, 65, 97)
    maps = backbone(image)
    assert [tuple(each.shape[-2:]) for each in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    for own, whole in zip(maps, backbone(F.pad(image, (0, 31, 0, 31))), strict=True):
        assert torch.equal(own, whole[..., : own.shape[-2], : own.shape[-1]])


def test_the_adapter_starts_without_an_effect_on_the_transformer():
    backbone = create_model("vit_adapter", bands=3, num_classes=2).backbone
    assert all(not interaction.injector.gamma.any() for interaction in backbone.interactions)
    assert [len(interaction.extractors) for interaction in backbone.interactions] == [1, 1, 1, 3]


def test_a_file_of_deit_fills_the_transformer_alone(tmp_path):
    donor = randomize(timm.create_model("deit_tiny_patch16_224"))
    torch.save({"model": donor.state_dict()}, tmp_path / "x.pth")
    backbone = create_model("vit_adapter", bands=5, num_classes=2).backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    # DeiT has no scales; of the adapter nothing is expected.
    assert {line.split(".")[3] for line in load_pretrained(backbone, tmp_path / "x.pth")} == {"ls1", "ls2"}
    assert torch.equal(backbone.body.blocks[7].mlp.fc2.weight, donor.blocks[7].mlp.fc2.weight)
    assert torch.equal(backbone.body.pos_embed, donor.pos_embed[:, 1:])
    for name, value in backbone.state_dict().items():
        assert name.startswith("body.") or torch.equal(value, before[name])
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"another network than deit_tiny_patch16_224: 0 of \d+ tensors fit"):
        load_pretrained(backbone, tmp_path / "y.pth")


def test_both_convolutions_over_the_bands_are_made_for_others():
    given, own = (create_model("vit_adapter", bands=bands, num_classes=2) for bands in (3, 5))
    left_out = load_matching(own, {"state_dict": given.state_dict()}, "x.pth")
    assert [line.split(":")[0] for line in left_out] == [
        "mean",
        "std",
        "backbone.body.patch_embed.proj.weight",
        "backbone.prior.stem.0.conv.weight",
    ]
    for name in ("body.patch_embed.proj", "prior.stem.0.conv"):
        wanted = adapt_stem(given.backbone.get_submodule(name).weight, 5, "rgb_mean")
        assert torch.equal(own.backbone.get_submodule(name).weight, wanted)
