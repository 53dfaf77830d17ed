"""Plain transformers compute what MMSegmentation computes, in double precision, and at any image size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.backbones import vit as vit_file
from nets.backbones.catalogue import create_backbone
from nets.backbones.necks import DeconvolvedMaps, ResizedMaps
from nets.backbones.plain_transformer import PlainTransformer
from nets.backbones.relative_positions import distance_index, fit_table, relative_bias, table_rows
from nets.backbones.vit import VIT_SIZES, ViT, ViTSize
from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.openmmlab import load_openmmlab
from nets.importers.plain_backbones import pyramid_neck
from tests.helpers import changed, shared_parity
from tools.parity_runner import run

# The other references take a minute each; tools/make_parity_report.py runs all.
REFERENCES = ["upernet_deit-s16_mln"]
SMALL = {"width": 32, "depth": 4, "heads": 4}


@pytest.fixture
def small(monkeypatch):
    """Make the base size small."""
    monkeypatch.setitem(vit_file.VIT_SIZES, "base", ViTSize(32, 12, 4, ""))


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name):
    reference = shared_parity(name).first
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def test_relative_positions_by_a_loop():
    grid, heads = (2, 3), 5
    table = torch.randn(table_rows(grid), heads)
    bias = relative_bias(table, grid, grid, distance_index(grid, table.device))
    assert bias.shape == (1, heads, 7, 7)
    places = [None, *((row, column) for row in range(2) for column in range(3))]
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            if query is None or key is None:
                row = -1 if query is key else -3 if query is None else -2
            else:
                row = (query[0] - key[0] + 1) * 5 + query[1] - key[1] + 2
            assert torch.equal(bias[0, :, i, j], table[row]), (query, key)


def test_a_table_is_resized_as_a_picture():
    table = torch.randn(table_rows((3, 2)), 4)
    assert fit_table(table, (3, 2), (3, 2)) is table
    resized = fit_table(table, (3, 2), (4, 6))
    plane = F.interpolate(table[:-3].T.reshape(1, 4, 5, 3), (7, 11), mode="bicubic")
    assert torch.equal(resized, torch.cat([plane[0].flatten(1).T, table[-3:]]))


@pytest.mark.parametrize("name", ["mae_b", "beit_b"])
def test_any_size_bands_and_precision(name, small):
    backbone = create_backbone(name, bands=5).eval()
    assert backbone.strides == [4, 8, 16, 32]
    with torch.inference_mode():
        for size in ((64, 64), (65, 97)):
            maps = backbone(torch.randn(2, 5, *size))
            assert [tuple(x.shape[2:]) for x in maps] == [
                tuple(-(-side // stride) for side in size) for stride in backbone.strides
            ]
        with torch.autocast("cpu", torch.bfloat16):
            assert all(x.isfinite().all() for x in backbone(torch.randn(1, 5, 64, 96)))


def test_padding_of_patches():
    images = torch.randn(1, 2, 37, 50)
    corner, left_out = (0, 14, 0, 11), (0, -2, 0, -5)
    sides = {"corner": corner, "same": (7, 7, 5, 6), "none": left_out, "fit": left_out}
    for padding, margins in sides.items():
        odd = ViT("tiny", bands=2, blocks=(1,), padding=padding, image_size=(32, 48)).eval()
        with torch.inference_mode():
            assert torch.equal(odd(images)[0], odd(F.pad(images, margins))[0])
    other = ViT("tiny", bands=2, blocks=(1,), padding="fit", image_size=(64, 64)).eval()
    with torch.inference_mode():
        assert torch.equal(other(images)[0], other(F.pad(images, corner))[0])


def test_norms_and_biases_where_they_are_asked_for():
    options = {
        "bands": 2,
        "pre_norm": True,
        "patch_norm": True,
        "final_norm": True,
        "qkv_bias": "none",
        **SMALL,
    }
    network = ViT("tiny", blocks=(1, 3), project_bias=False, class_token=True, norm_eps=1e-3, **options)
    assert {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)} == {1e-3}
    attention = network.body.blocks[0].attn
    assert attention.qkv.bias is None and attention.proj.bias is None
    assert network.body.blocks[0].mlp.fc1.bias is not None and network.body.patch_embed.proj.bias is not None
    nn.init.zeros_(network.body.norm.weight)
    first, last = network.eval()(torch.randn(1, 2, 64, 64))
    assert first.abs().max() > 0 and last.abs().max() == 0
    # A norm behind the last block that nobody reads has no place.
    assert isinstance(ViT("tiny", blocks=(1, 2), **options).body.norm, nn.Identity)


def test_necks_by_hand():
    maps = [torch.randn(1, 6, 5, 3) for _ in range(4)]
    neck = DeconvolvedMaps(6, (4, 2, 1, 0.5)).eval()
    assert [tuple(x.shape[2:]) for x in neck(maps)] == [(20, 12), (10, 6), (5, 3), (2, 1)]
    torch.testing.assert_close(neck(maps)[3], F.max_pool2d(maps[3], 2))
    neck = ResizedMaps([6] * 4, 8, (4, 2, 1, 0.5)).eval()
    half = F.interpolate(neck.laterals[3](maps[3]), scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(neck(maps)[3], neck.smooth[3](half))
    assert len(ResizedMaps([6], 8, (2, 1))(maps[:1])) == 2


def test_upernet_on_maps_of_one_size_is_imported_only():
    options = {"bands": 3, "num_classes": 2, "backbone": "deit_t"}
    with torch.device("meta"):
        network = create_model("upernet", backbone_options={"neck": "none"}, **options)
    assert network.backbone.strides == [16] * 4 and isinstance(network.backbone, PlainTransformer)
    with pytest.raises(UserError, match=r"backbone_options .* do not fit"):
        create_model("upernet", backbone_options={"necks": "none"}, **options)


LN = {"type": "LN", "eps": 1e-6}


def test_all_sizes_are_recognised():
    for size, each in VIT_SIZES.items():
        section = {
            "embed_dims": each.width,
            "num_layers": each.depth,
            "num_heads": each.heads,
            "norm_cfg": LN,
        }
        found = translate_backbone({"type": "VisionTransformer", "out_indices": [2, 5], **section})
        assert found.name == f"vit_{size}" and found.options["blocks"] == (2, 5)
        if size in ("base", "large"):
            for kind in ("MAE", "BEiT"):
                found = translate_backbone({"type": kind, "img_size": 640, **section})
                assert found.name == f"{kind.lower()}_{size[0]}"
                assert found.options["blocks"] == (each.depth - 1,)
    found = translate_backbone({"type": "BEiT", "embed_dims": 96, "num_heads": 3, "qv_bias": False})
    assert found.name == "beit_b" and found.options["width"] == 96 and found.options["qkv_bias"] == "none"
    assert found.options["norm_eps"] == 1e-5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "VisionTransformer", "out_origin": True}, "out_origin=True"),
        ({"type": "VisionTransformer", "output_cls_token": True}, "output_cls_token=True; False is needed"),
        ({"type": "VisionTransformer", "patch_pad": 3}, "patch_pad=3"),
        ({"type": "BEiT", "num_fcs": 3}, "num_fcs=3; 2 is needed"),
        ({"type": "MAE", "out_indices": [3, 12]}, r"out_indices=\[3, 12\] of 12"),
        ({"type": "MAE", "act_cfg": {"type": "ReLU"}}, "MAE has act_cfg"),
    ],
)
def test_what_is_not_here_is_said(section, message):
    with pytest.raises(UserError, match=message):
        translate_backbone(section)


@pytest.mark.parametrize(
    ("neck", "maps", "message"),
    [
        ({"type": "MultiLevelNeck", "out_channels": 8, "scales": [4, 2]}, 4, "for 4 maps"),
        ({"type": "MultiLevelNeck", "out_channels": 8, "act_cfg": {"type": "GELU"}}, 4, "GELU"),
        ({"type": "Feature2Pyramid", "rescales": [4, 2, 1]}, 3, "rescales="),
        ({"type": "JPU"}, 4, "'JPU' is not here"),
    ],
)
def test_necks_that_are_not_here_are_said(neck, maps, message):
    with pytest.raises(UserError, match=message):
        pyramid_neck(neck, maps)


def test_a_neck_of_mmsegmentation_needs_a_plain_transformer():
    kind = "type='EncoderDecoder'"
    checkpoint = changed(shared_parity("upernet_r18").checkpoint, kind, f"neck=dict(type='JPU'), {kind}")
    with pytest.raises(UserError, match="plain transformer only"):
        load_openmmlab(checkpoint)
