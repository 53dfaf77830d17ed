"""Semantic FPN, PoolFormer and Twins compute what MMSegmentation computes, in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.backbones.normed import NormedBackbone
from nets.backbones.twins import MaskedWindowAttention, Twins
from nets.decoders.semantic_fpn import Enlargement
from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.openmmlab import load_openmmlab
from nets.importers.twins_backbone import SIZES
from nets.models.sem_fpn import FeaturePyramid
from tests.helpers import changed, shared_parity
from tools.parity_runner import run

REFERENCES = ["fpn_r50", "poolformer_s12", "twins_pcpvt-s_fpn", "twins_svt-s_fpn"]


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name):
    reference = shared_parity(name).first
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def by_hand(attention: MaskedWindowAttention, x: torch.Tensor, masked: bool) -> torch.Tensor:
    """Return the attention of a map (1, h, w, D), window after window, by a loop over them."""
    _, h, w, width = x.shape
    side, heads = attention.ws, attention.num_heads
    padded = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
    result = torch.zeros_like(padded)
    for top in range(0, h, side):
        for left in range(0, w, side):
            window = padded[0, top : top + side, left : left + side].reshape(side * side, width)
            q, k, v = attention.qkv(window).reshape(-1, 3, heads, width // heads).permute(1, 2, 0, 3)
            scores = q @ k.transpose(1, 2) * (width // heads) ** -0.5
            rows = torch.arange(top, top + side)[:, None]
            inside = ((rows < h) & (torch.arange(left, left + side) < w)).flatten()
            if masked:
                scores[:, inside] = scores[:, inside].masked_fill(~inside, float("-inf"))
            attended = (scores.softmax(-1) @ v).transpose(0, 1).reshape(side, side, width)
            result[0, top : top + side, left : left + side] = attended
    return attention.proj(result[:, :h, :w])


@pytest.mark.parametrize(
    ("size", "masked"), [((14, 7), False), ((5, 9), True), ((7, 9), False), ((9, 14), False)]
)
def test_windows_of_twins_mask_padding_where_the_authors_do(size, masked):
    attention = MaskedWindowAttention(8, num_heads=2, ws=7).double().eval()
    x = torch.randn(1, *size, 8, dtype=torch.float64)
    found = attention(x.flatten(1, 2), size).unflatten(1, size)
    torch.testing.assert_close(found, by_hand(attention, x, masked))


def test_twins_pads_to_whole_patches():
    backbone = Twins("twins_svt_small", bands=2).eval()
    image = torch.randn(1, 2, 65, 97)
    maps = backbone(image)
    assert [tuple(each.shape[-2:]) for each in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    for whole, padded in zip(maps, backbone(F.pad(image, (0, 3, 0, 3))), strict=True):
        assert torch.equal(whole, padded)


def test_the_norm_behind_a_stage_of_twins_goes_on_to_the_next():
    backbone = Twins("twins_svt_small", bands=3, stages=2).eval()
    nn.init.zeros_(backbone.norms[0].weight)
    assert torch.equal(backbone(torch.randn(1, 3, 64, 64))[1], backbone(torch.randn(1, 3, 64, 64))[1])
    assert Twins("twins_pcpvt_small", bands=3).norms is None


def test_poolformer_has_group_norms_on_its_maps():
    backbone = NormedBackbone("poolformer_s12", bands=3, norm_eps=1e-3)
    assert all(isinstance(norm, nn.GroupNorm) and norm.num_groups == 1 for norm in backbone.norms)
    assert {m.eps for m in backbone.modules() if isinstance(m, nn.GroupNorm)} == {1e-3}
    with torch.device("meta"):
        network = create_model("sem_fpn", bands=3, num_classes=2, backbone="poolformer_s12")
    assert isinstance(network.backbone, NormedBackbone)


@torch.inference_mode()
def test_pyramid_and_enlargement_by_hand():
    pyramid = FeaturePyramid([3, 4], 5).eval()
    fine, coarse = torch.randn(1, 3, 9, 6), torch.randn(1, 4, 5, 3)
    first, second = pyramid([fine, coarse])
    lateral = pyramid.laterals[1](coarse)
    torch.testing.assert_close(second, pyramid.smooth[1](lateral))
    summed = pyramid.laterals[0](fine) + F.interpolate(lateral, (9, 6), mode="nearest")
    torch.testing.assert_close(first, pyramid.smooth[0](summed))
    x = torch.randn(1, 5, 4, 3)
    for doublings, size, convolutions in ((0, (4, 3), 1), (1, (8, 6), 1), (3, (32, 24), 3)):
        level = Enlargement(5, 32, doublings, norm="group", align_corners=False).eval()
        assert len(level) == convolutions and level(x).shape == (1, 32, *size)


def test_sem_fpn_refuses_widths_and_backbones_that_do_not_fit():
    with pytest.raises(UserError, match="channels=48 is given; a multiple of 32"):
        create_model("sem_fpn", bands=3, num_classes=2, channels=48)
    with pytest.raises(UserError, match="four sizes are needed"), torch.device("meta"):
        create_model("sem_fpn", bands=3, num_classes=2, backbone="eva02_tiny_patch14_224")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("fpn_r50", "num_outs=4", "num_outs=5", "num_outs=5; 4 is needed"),
        ("fpn_r50", "num_outs=4", "num_outs=4, act_cfg=dict(type='ReLU')", "None is needed"),
        ("poolformer_s12", "arch='s12'", "arch='s13'", "arch='s13'"),
        ("twins_svt-s_fpn", "qkv_bias=True", "qkv_bias=False", "qkv_bias=False; True is needed"),
    ],
)
def test_what_is_not_here_is_said(name, old, new, message):
    with pytest.raises(UserError, match=message):
        load_openmmlab(changed(shared_parity(name).checkpoint, old, new))


def test_all_sizes_of_twins_and_poolformer_are_recognised():
    shared = {"qkv_bias": True, "sr_ratios": [8, 4, 2, 1], "norm_cfg": {"type": "LN"}}
    for (kind, depths, widths, heads, ratios), name in SIZES.items():
        section = {"type": kind, "depths": list(depths), "embed_dims": list(widths), **shared}
        section |= {"num_heads": list(heads), "mlp_ratios": list(ratios)}
        if kind == "SVT":
            section["windiow_sizes"] = [7, 7, 7, 7]
        found = translate_backbone(section)
        assert found.name == name and found.options["stage_norm"] == (kind == "SVT")
        assert found.options["norm_eps"] == 1e-5
        with torch.device("meta"):
            body = Twins(name, bands=3).body.model
        assert [len(blocks) for blocks in body.blocks] == list(depths)
        assert tuple(body.embed_dims) == widths
    for size in ("s24", "m48"):
        section = {"type": "mmpretrain.PoolFormer", "arch": size, "out_indices": (0, 2, 4, 6)}
        assert translate_backbone(section).name == f"poolformer_{size}"
