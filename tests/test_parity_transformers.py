"""SegFormer, UPerNet and SegNeXt compute what MMSegmentation computes; parts of them and SETR by hand."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock

from nets import create_model
from nets.backbones import vit as vit_file
from nets.backbones.swin import PadThenShiftBlock
from nets.backbones.vit import ViT, ViTSize
from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.pyramid_backbones import SWIN_SIZES
from nets.models.segnext import NMF
from nets.models.setr import Aggregation
from tests.helpers import shared_parity
from tools.parity_runner import run

# SETR's references take half a minute each; tools/make_parity_report.py runs all.
SMALLEST = ["segformer_b0", "segnext_t", "upernet_swin-t", "upernet_convnext-tiny"]


@pytest.mark.parametrize("name", SMALLEST)
def test_reference(name):
    reference = shared_parity(name)
    logits = run(reference.checkpoint, reference.images, extras=reference.extras)
    assert reference.difference(logits) < 1e-7


def test_segnext_without_the_references_bases_is_another_function():
    reference = shared_parity("segnext_t")
    assert reference.difference(run(reference.checkpoint, reference.images)) > 1e-7


def test_vit_is_torchs_encoder_with_a_resized_position_embedding(monkeypatch):
    monkeypatch.setitem(vit_file.VIT_SIZES, "tiny", ViTSize(32, 3, 4, ""))
    options = {"bands": 2, "blocks": (0, 2), "image_size": (64, 48), "class_token": True}
    ours = ViT("tiny", **options).double().eval()
    torch.nn.init.normal_(ours.body.pos_embed)
    images = torch.randn(2, 2, 65, 97, dtype=torch.float64)
    tokens = ours.body.patch_embed.proj(F.pad(images, (0, 15, 0, 15))).flatten(2).transpose(1, 2)
    plane = ours.body.pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, 4, 3)
    tokens = tokens + F.interpolate(plane, (5, 7), mode="bicubic").flatten(2).transpose(1, 2)
    token = (ours.body.cls_token + ours.body.pos_embed[:, :1]).expand(2, 1, 32)
    tokens = torch.cat([token, tokens], dim=1)
    expected = []
    for block in ours.body.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            32,
            4,
            128,
            0.0,
            "gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
            dtype=torch.float64,
        )
        pairs = ((layer.self_attn.out_proj, block.attn.proj), (layer.linear1, block.mlp.fc1))
        pairs += ((layer.linear2, block.mlp.fc2), (layer.norm1, block.norm1), (layer.norm2, block.norm2))
        for theirs, own in pairs:
            theirs.load_state_dict(own.state_dict())
        layer.self_attn.in_proj_weight.data.copy_(block.attn.qkv.weight)
        layer.self_attn.in_proj_bias.data.copy_(block.attn.qkv.bias)
        tokens = layer(tokens)
        expected.append(tokens[:, 1:].transpose(1, 2).reshape(2, 32, 5, 7))
    for feature, other in zip(ours(images), (expected[0], expected[2]), strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-9, atol=1e-10)


def test_mla_adds_from_the_last_map_to_the_first():
    joined = Aggregation([12] * 4, 8).eval()
    maps = [torch.randn(1, 12, 2, 3) for _ in range(4)]
    projected = [p(n(x)) for x, n, p in zip(maps, joined.norms, joined.project, strict=True)]
    smoothed = joined(maps)
    for i in range(4):
        torch.testing.assert_close(smoothed[i], joined.smooth[i](sum(projected[3 - i :])))


def test_setr_naive_classifies_before_it_enlarges():
    for decoder, size in {"naive": (4, 5), "pup": (64, 80)}.items():
        with torch.device("meta"):
            network = create_model("setr", bands=3, num_classes=2, backbone="base", decoder=decoder).eval()
            assert network.head(torch.empty(1, 768, 4, 5)).shape == (1, 2, *size)


@pytest.mark.parametrize("decoder", ["naive", "pup", "mla"])
def test_setr_has_the_auxiliary_heads_of_the_paper(decoder):
    with torch.device("meta"):
        network = create_model("setr", bands=3, num_classes=2, backbone="large", decoder=decoder, aux=True)
        outputs = network(torch.empty(2, 3, 64, 64))
    assert [tuple(each.shape) for each in outputs["aux"]] == [(2, 2, 64, 64)] * {
        "naive": 3,
        "pup": 4,
        "mla": 4,
    }[decoder]


def test_swin_pads_before_it_shifts():
    block = SwinTransformerBlock(
        8, (7, 7), 2, window_size=7, shift_size=3, always_partition=True, dynamic_mask=True
    )
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    whole, odd = torch.randn(1, 14, 7, 8), torch.randn(1, 16, 20, 8)
    plain = block.eval()(whole), block(odd)
    block.__class__ = PadThenShiftBlock
    torch.testing.assert_close(block(whole), plain[0])
    assert not torch.allclose(block(odd), plain[1], atol=1e-3)
    # The first shifted window holds rows and columns 3 to 9 and nothing else.
    rolled = torch.roll(F.pad(block.norm1(odd), (0, 0, 0, 1, 0, 5)), (-3, -3), (1, 2))[:, :7, :7]
    corner = block.attn(rolled.reshape(1, 49, 8)).reshape(1, 7, 7, 8)
    torch.testing.assert_close(block._attn(block.norm1(odd))[:, 3:10, 3:10], corner)


def test_nmf_follows_the_update_rules():
    nmf = NMF(6, groups=2, rank=2, train_steps=3, eval_steps=4).double().eval()
    data = torch.rand(2, 6, 3, 5, dtype=torch.float64)
    for image in range(2):
        for group in range(2):
            x = data[image, 3 * group : 3 * group + 3].flatten(1)
            bases = nmf.fixed_bases[group]
            codes = (x.T @ bases).softmax(-1)
            for _ in range(4):
                codes = codes * (x.T @ bases) / (codes @ bases.T @ bases + 1e-6)
                bases = bases * (x @ codes) / (bases @ codes.T @ codes + 1e-6)
            codes = codes * (x.T @ bases) / (codes @ bases.T @ bases + 1e-6)
            expected = (bases @ codes.T).reshape(3, 3, 5)
            torch.testing.assert_close(nmf(data)[image, 3 * group : 3 * group + 3], expected)


def test_nmf_is_drawn_anew_in_training_only():
    network = create_model("segnext", bands=3, num_classes=2)
    seeded = torch.rand((1, 256, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.fixed_bases, F.normalize(seeded, dim=1), rtol=0, atol=0)
    assert not any("fixed_bases" in key for key in network.state_dict())
    nmf, data = network.decoder.hamburger.nmf, torch.rand(2, 256, 4, 4)
    assert torch.equal(nmf.eval()(data), nmf(data))
    assert not torch.equal(nmf.train()(data), nmf(data))
    before = nmf.eval()(data)
    network.fixed_bases = torch.cat([network.fixed_bases, network.fixed_bases.flip(2) ** 2])
    after = nmf(data)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


GELU = {"type": "GELU"}
LN = {"type": "LN", "eps": 1e-6}


@pytest.mark.parametrize("size", SWIN_SIZES)
def test_every_swin_is_recognised(size):
    width, depths, heads, window = size
    section = {"type": "SwinTransformer", "embed_dims": width, "depths": list(depths), "num_heads": heads}
    backbone = translate_backbone(section | {"window_size": window, "drop_path_rate": 0.2, "act_cfg": GELU})
    assert backbone.name == SWIN_SIZES[size] and f"window{window}" in backbone.name
    assert backbone.options["drop_path"] == 0.2 and backbone.options["norm_eps"] == 1e-5


def test_other_backbones_are_recognised():
    for arch in ("tiny", "small", "base", "large", "xlarge"):
        section = {
            "type": "mmcls.ConvNeXt",
            "arch": arch,
            "out_indices": [0, 1, 2, 3],
            "gap_before_final_norm": False,
        }
        assert translate_backbone(section).name == f"convnext_{arch}"
    section = {
        "type": "MSCAN",
        "embed_dims": [64, 128, 320, 512],
        "mlp_ratios": [8, 8, 4, 4],
        "norm_cfg": {"type": "BN"},
    }
    for size, depths in {"s": (2, 2, 4, 2), "b": (3, 3, 12, 3), "l": (3, 5, 27, 3)}.items():
        assert translate_backbone(section | {"depths": depths}).name == f"mscan_{size}"
    section = {"type": "MixVisionTransformer", "num_heads": [1, 2, 5, 8], "norm_cfg": LN}
    for size, depths in {"b1": (2, 2, 2, 2), "b4": (3, 8, 27, 3), "b5": (3, 6, 40, 3)}.items():
        backbone = translate_backbone(section | {"num_layers": depths})
        assert backbone.name == f"mit_{size}" and backbone.options["block_eps"] == 1e-6
    section = {
        "type": "VisionTransformer",
        "img_size": (768, 768),
        "out_indices": (9, 14, 19, 23),
        "norm_cfg": LN,
    }
    backbone = translate_backbone(section | {"embed_dims": 1024, "num_layers": 24, "num_heads": 16})
    assert backbone.name == "vit_large" and backbone.options["image_size"] == (768, 768)
    assert backbone.options["position_interpolation"] == "bicubic"


def test_what_is_not_here_is_refused():
    with pytest.raises(UserError, match=r"SwinTransformer has the sizes .*here are"):
        translate_backbone({"type": "SwinTransformer", "window_size": 8, "act_cfg": GELU})
    with pytest.raises(UserError, match="use_abs_pos_embed=True; False is needed"):
        translate_backbone({"type": "SwinTransformer", "use_abs_pos_embed": True})
    with pytest.raises(UserError, match="ConvNeXt has use_grn=True"):
        translate_backbone({"type": "ConvNeXt", "use_grn": True})
    with torch.device("meta"), pytest.raises(UserError, match="four sizes are needed"):
        create_model("upernet", bands=3, num_classes=2, backbone="vit_small_patch14_dinov2")
    with pytest.raises(UserError, match="ViT base has blocks 0 to 11"):
        create_model("setr", bands=3, num_classes=2, backbone="base", decoder="mla", layers="2,5,8,12")
