"""DPT: its parts by hand, the logits of MMSegmentation and of segmentation_models.pytorch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.errors import UserError
from nets.importers.foreign import load_foreign
from nets.importers.openmmlab import load_openmmlab
from nets.importers.placing import place_weights
from nets.importers.smp_dpt import read_smp_dpt
from nets.models.dpt import Fusion, ReadoutViT, ResidualUnit, reassemble
from tests.helpers import changed, randomize, shared_parity, unnormalised
from tools.parity_runner import run

SMALL = {"width": 32, "depth": 4, "heads": 2, "image_size": (64, 64), "class_token": True}


def test_reference():
    reference = shared_parity("dpt_vit-b16").first
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


@pytest.mark.parametrize(
    ("theirs", "unseen"),
    [
        ({"encoder_name": "tu-vit_tiny_patch16_224"}, {}),
        (
            {"encoder_output_indices": [0, 3, 5, 9], "decoder_readout": "add", "in_channels": 5},
            {"readout": "add", "layers": (0, 3, 5, 9)},
        ),
        (
            {
                "encoder_depth": 3,
                "decoder_readout": "ignore",
                "decoder_intermediate_channels": (16, 24, 32),
                "decoder_fusion_channels": 48,
            },
            {},
        ),
        ({"encoder_name": "tu-vit_small_patch8_224"}, {}),
    ],
)
def test_same_logits_as_smp(theirs, unseen):
    smp = pytest.importorskip("segmentation_models_pytorch")
    usual = {"encoder_name": "tu-vit_tiny_patch16_224", "encoder_weights": None, "classes": 3, "img_size": 64}
    network = smp.DPT(**(usual | theirs))
    randomize(network).double().eval()
    blueprint, weights = read_smp_dpt(network.state_dict(), **unseen)
    ours = create_model(blueprint["name"], **blueprint["options"])
    place_weights(ours, weights)
    ours.double().eval()
    side = (usual | theirs)["img_size"]
    images = torch.randn(2, theirs.get("in_channels", 3), side, side, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=0, atol=1e-9 * expected.std())


def test_smps_positions_are_resized_as_timm_does():
    smp = pytest.importorskip("segmentation_models_pytorch")
    options = {"encoder_weights": None, "classes": 2, "dynamic_img_size": True}
    theirs = randomize(smp.DPT("tu-vit_tiny_patch16_224", **options)).eval()
    ours = unnormalised(load_foreign(theirs.state_dict()))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-3, atol=1e-3)


def test_smps_weights_that_do_not_fit_are_refused():
    weights = {"encoder.model.patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)}
    with pytest.raises(UserError, match="ViT with class token"):
        read_smp_dpt(weights)


@torch.inference_mode()
def test_readouts_by_hand():
    x = torch.randn(2, 3, 64, 96)
    for readout in ("project", "add", "ignore"):
        torch.manual_seed(0)
        network = ReadoutViT("tiny", readout=readout, bands=3, blocks=(0, 3), **SMALL).eval()
        for i, (found, (patches, token)) in enumerate(zip(network(x), network.encode(x), strict=True)):
            assert found.shape == (2, 32, 4, 6)
            patch, word = patches[:, :, 1, 2], token
            expected = {"ignore": patch, "add": patch + word}.get(readout)
            if expected is None:
                expected = F.gelu(network.projects[i](torch.cat([patch, word], dim=1)))
            torch.testing.assert_close(found[:, :, 1, 2], expected)


@torch.inference_mode()
def test_fusion_by_hand():
    unit = ResidualUnit(4, norm=True).eval()
    x, coarser = torch.randn(1, 4, 5, 3), torch.randn(1, 4, 6, 4)
    expected = unit.second.norm(unit.second.conv(F.relu(unit.first.norm(unit.first.conv(F.relu(x))))))
    torch.testing.assert_close(unit(x), x + expected)
    fusion = Fusion(4, refine=True, norm=True, align_corners=True).eval()
    summed = coarser + fusion.refine(F.interpolate(x, (6, 4), mode="bilinear"))
    enlarged = F.interpolate(fusion.smooth(summed), (12, 8), mode="bilinear", align_corners=True)
    torch.testing.assert_close(fusion(x, coarser), fusion.project(enlarged))
    assert isinstance(Fusion(4, refine=False, norm=False, align_corners=True).refine, nn.Identity)
    sizes = {4.0: (20, 12), 2.0: (10, 6), 1.0: (5, 3), 0.5: (3, 2)}
    for scale, size in sizes.items():
        assert reassemble(4, 6, 8, scale)(x).shape == (1, 8, *size)


@torch.inference_mode()
def test_padding_is_cut_off():
    options = {"bands": 2, "num_classes": 3, "backbone": "tiny", "channels": 8, "layers": (0, 1, 2, 3)}
    torch.manual_seed(0)
    network = create_model("dpt", backbone_options=SMALL, **options).eval()
    images = torch.randn(1, 2, 70, 50)
    whole = network(F.pad(images, (0, 14, 0, 10)))["logits"]
    assert whole.shape[-2:] == (80, 64)
    torch.testing.assert_close(network(images)["logits"], whole[..., :70, :50])


def test_widths_are_as_many_as_layers():
    with pytest.raises(UserError, match="for 3 layers; as many are needed"):
        create_model("dpt", bands=3, num_classes=2, layers=(1, 2, 3), widths=(8, 8))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("output_cls_token=True", "output_cls_token=False", "with output_cls_token=True"),
        ("auxiliary_head=None", "auxiliary_head=dict(type='FCNHead')", "without auxiliary heads"),
        (
            "readout_type='project'",
            "readout_type='project', expand_channels=True",
            "expand_channels=True; False",
        ),
        ("readout_type='project'", "readout_type='cat'", "readout_type='cat'"),
        ("embed_dims=768", "embed_dims=768, out_origin=True", "out_origin=True"),
    ],
)
def test_what_is_not_here_is_said(old, new, message):
    with pytest.raises(UserError, match=message):
        load_openmmlab(changed(shared_parity("dpt_vit-b16").checkpoint, old, new))
