"""Segmenter: its parts by hand, MMSegmentation's logits, and what cannot be imported."""

import pytest
import torch
import torch.nn.functional as F

from nets import create_model
from nets.backbones.plain_transformer import PlainTransformer
from nets.errors import UserError
from nets.importers.mmseg_segmenter import translate
from nets.importers.openmmlab import load_openmmlab
from nets.models.segmenter import MaskTransformer
from tests.helpers import changed, shared_parity
from tools.parity_runner import run

NARROW = {"width": 32, "depth": 2, "heads": 2, "image_size": (64, 64)}


@pytest.mark.parametrize("name", ["segmenter_s_linear", "segmenter_ti"])
def test_reference(name):
    reference = shared_parity(name).first
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def mask_transformer(**options):
    usual = {"layers": 1, "heads": 2, "mlp_ratio": 2.0, "qkv_bias": True, "drop_path": 0.0, "dropout": 0.0}
    usual |= {"attention_dropout": 0.0, "norm_eps": 1e-5}
    return MaskTransformer(6, 4, 8, **(usual | options)).double().eval()


@torch.inference_mode()
def test_a_score_is_the_cosine_of_class_and_patch():
    head = mask_transformer()
    torch.nn.init.normal_(head.mask_norm.weight)
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    scores = head(x)
    patches = head.enter(x.permute(0, 2, 3, 1).reshape(2, 15, 6))
    tokens = head.norm(head.blocks[0](torch.cat([patches, head.class_tokens.expand(2, -1, -1)], dim=1)))
    for place in range(15):
        patch = head.project_patches(tokens[:, place])
        cosines = [F.cosine_similarity(patch, head.project_classes(tokens[:, 15 + k])) for k in range(4)]
        expected = head.mask_norm(torch.stack(cosines, dim=1))
        torch.testing.assert_close(scores[:, :, place // 5, place % 5], expected)


def test_options_reach_the_mask_transformer():
    head = mask_transformer(norm_eps=1e-3, qkv_bias=False, layers=3, drop_path=0.2, dropout=0.3)
    assert {m.eps for m in head.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-3}
    attention = head.blocks[2].attn
    assert attention.qkv.bias is None and attention.proj.bias is None and attention.proj_drop.p == 0.3
    assert head.blocks[2].drop_path1.drop_prob == pytest.approx(0.2)
    with torch.device("meta"):
        network = create_model("segmenter", bands=3, num_classes=2, backbone="base", patch=32)
    assert network.head.blocks[0].attn.num_heads == 12 and network.backbone.strides == [32]


@torch.inference_mode()
def test_padding_is_cut_off_or_squeezed():
    options = {"bands": 2, "num_classes": 3, "backbone": "tiny", "backbone_options": NARROW}
    torch.manual_seed(0)
    cutting = create_model("segmenter", unpad=True, **options).eval()
    squeezing = create_model("segmenter", unpad=False, **options).eval()
    squeezing.load_state_dict(cutting.state_dict())
    images = torch.randn(1, 2, 40, 50)
    padded = F.pad(images, (0, 14, 0, 8))
    whole = cutting(padded)["logits"]
    torch.testing.assert_close(cutting(images)["logits"], whole[..., :40, :50])
    coarse = cutting.head(cutting.backbone(padded)[-1])
    torch.testing.assert_close(squeezing(images)["logits"], F.interpolate(coarse, (40, 50), mode="bilinear"))


def test_auxiliary_heads_read_other_blocks():
    options = {"bands": 3, "num_classes": 2, "backbone": "tiny", "decoder": "linear", "layers": (5, 11)}
    with torch.device("meta"):
        network = create_model("segmenter", aux=True, **options).train()
        outputs = network(torch.empty(2, 3, 64, 64))
    assert [each.shape for each in outputs["aux"]] == [(2, 2, 64, 64)]


BACKBONE = {"type": "VisionTransformer", "embed_dims": 192, "num_heads": 3, "norm_cfg": {"type": "LN"}}
CLASSIFIER = {"type": "FCNHead", "channels": 192, "num_convs": 0, "concat_input": False, "num_classes": 3}


def test_a_head_with_convolutions_is_an_fcn():
    norm = {"norm_cfg": {"type": "BN"}}
    name, options, *_ = translate({"backbone": BACKBONE, "decode_head": CLASSIFIER}, [])
    assert name == "segmenter" and options["backbone"] == "tiny"
    model = {"backbone": BACKBONE, "decode_head": CLASSIFIER | {"num_convs": 1} | norm}
    name, options, *_ = translate(model, [])
    with torch.device("meta"):
        network = create_model(name, bands=3, num_classes=3, **options)
    assert name == "fcn" and isinstance(network.backbone, PlainTransformer)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='EncoderDecoder'", "neck=dict(type='FPN'), type='EncoderDecoder'", "without a neck"),
        ("type='VisionTransformer'", "type='BEiT'", "needed on a VisionTransformer"),
        ("num_layers=2", "num_layers=2, num_fcs=3", "num_fcs=3; 2 is needed"),
        ("num_layers=2", "num_layers=2, act_cfg=dict(type='ReLU')", "act_cfg"),
        ("num_layers=2", "num_layers=2, input_transform='resize_concat'", "joins several maps"),
    ],
)
def test_what_is_not_here_is_said(old, new, message):
    with pytest.raises(UserError, match=message):
        load_openmmlab(changed(shared_parity("segmenter_ti").checkpoint, old, new))
