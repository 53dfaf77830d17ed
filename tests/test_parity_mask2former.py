"""Mask2Former computes what MMSegmentation and Hugging Face compute."""

import json
import re

import pytest
import torch

from nets.errors import UserError
from nets.importers.huggingface import load_huggingface, read_huggingface
from nets.importers.openmmlab import load_openmmlab, read_openmmlab
from tests.helpers import randomize, shared_parity, unnormalised
from tools.parity_runner import run

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(scope="module")
def r50():
    return shared_parity("mask2former_r50")


@pytest.mark.parametrize("name", ["mask2former_r50", "mask2former_swin-t"])
def test_reference(name):
    reference = shared_parity(name)
    logits = run(reference.checkpoint, reference.images)
    assert reference.difference(logits) < 1e-7


def transformers_in_float64(monkeypatch):
    """Let transformers compute positions in float32, as the others do in any precision."""
    library = pytest.importorskip("transformers")
    from transformers.models.mask2former import modeling_mask2former as theirs

    embedding = theirs.Mask2FormerSinePositionEmbedding.forward
    reference_points = theirs.Mask2FormerPixelDecoderEncoderOnly.get_reference_points
    monkeypatch.setattr(
        theirs.Mask2FormerSinePositionEmbedding,
        "forward",
        lambda self, shape, device, dtype, mask=None: embedding(self, shape, device, torch.float32, mask),
    )
    monkeypatch.setattr(
        theirs.Mask2FormerPixelDecoderEncoderOnly,
        "get_reference_points",
        staticmethod(lambda sizes, ratios, device: reference_points(sizes, ratios.float(), device)),
    )
    return library


def swin(library):
    return library.SwinConfig(out_features=STAGES)


def resnet(library):
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    return library.ResNetConfig(out_features=STAGES, num_channels=4, **sizes)


SMALL = {
    "num_labels": 3, "num_queries": 7, "feature_size": 64, "mask_feature_size": 16, "hidden_dim": 64,
    "encoder_feedforward_dim": 48, "dim_feedforward": 40, "encoder_layers": 2, "decoder_layers": 5,
}  # fmt: skip
OTHER = SMALL | {"hidden_dim": 32, "pre_norm": True, "num_attention_heads": 4}


@pytest.mark.parametrize(("backbone", "options"), [(swin, SMALL), (resnet, OTHER)])
def test_hugging_face(backbone, options, monkeypatch, tmp_path):
    library = transformers_in_float64(monkeypatch)
    config = library.Mask2FormerConfig(backbone_config=backbone(library), **options)
    theirs = randomize(library.Mask2FormerForUniversalSegmentation(config)).eval()
    theirs.save_pretrained(tmp_path)
    safetensors = pytest.importorskip("safetensors.torch")
    on_the_hub = json.loads((tmp_path / "config.json").read_text())
    states = {
        "in memory": (config.to_dict(), theirs.state_dict()),
        "on the Hub": (on_the_hub, safetensors.load_file(tmp_path / "model.safetensors")),
    }
    theirs.double()
    images = torch.randn(2, config.backbone_config.num_channels, 70, 100, dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs(images, output_auxiliary_logits=True)
    layers = [*expected.auxiliary_logits, expected]
    for where, (described, state) in states.items():
        ours = unnormalised(load_huggingface(described, state)).double()
        with torch.inference_mode():
            outputs = ours(images)
        for own, name in (("mask_logits", "masks_queries_logits"), ("class_logits", "class_queries_logits")):
            assert len(outputs[own]) == len(layers) == 5
            for i, other in enumerate(layers):
                difference = (outputs[own][i] - other[name]).abs().max() / other[name].std()
                assert difference < 1e-10, (where, own, i)


def test_what_is_not_here_is_refused():
    config = {"model_type": "mask2former", "backbone_config": {"model_type": "dinat"}}
    with pytest.raises(UserError, match="Mask2Former has backbone 'dinat'; swin, convnext, resnet can"):
        read_huggingface(config, {})
    with pytest.raises(UserError, match="common_stride=8; 4 is needed"):
        read_huggingface(config | {"common_stride": 8}, {})


# Change of the configuration's text -> the builder's options that follow.
VARIANTS = [
    ("num_queries=100", "num_queries=5", {"queries": 5}),
    ("num_classes=150", "num_classes=2", {"num_classes": 2}),
    ("_project=False", "_project=True", {"project": True}),
    ("out_channels=256", "out_channels=32", {"mask_channels": 32}),
    ("num_points=4", "num_points=2", {"points": 2}),
    ("num_layers=6", "num_layers=1", {"pixel_layers": 1, "decoder_layers": 9}),
    ("num_layers=9", "num_layers=2", {"pixel_layers": 6, "decoder_layers": 2}),
    ("feedforward_channels=1024", "feedforward_channels=8", {"pixel_feedforward": 8, "feedforward": 2048}),
    ("feedforward_channels=2048", "feedforward_channels=8", {"pixel_feedforward": 1024, "feedforward": 8}),
    (r"num_heads=8(?=,\s+num_levels)", "num_heads=4", {"pixel_heads": 4, "heads": 8}),
    (r"num_heads=8(?=,\s+proj_drop)", "num_heads=4", {"pixel_heads": 8, "heads": 4}),
    ("num_groups=32", "num_groups=16", {"norm_groups": 16}),
    ("attn_drop=0.0", "attn_drop=0.1", {"dropout": 0.1}),
    ("depth=50", "depth=101", {"backbone": "resnet101"}),
    (r"num_(outs|levels|transformer_feat_level)=3", r"num_\1=4", {"levels": 4}),
    ("normalize=True, ", "", {"positions": {"normalize": False}, "pixel_positions": {"normalize": False}}),
    ("num_feats=128", "num_feats=128, offset=-0.5", {"positions": {"offset": -0.5}}),
    ("mmdet.MSDeformAttn", "MSDeformAttn", {"positions": None, "pixel_positions": None}),
]


def test_every_option_of_the_configuration_is_read(r50):
    meta = r50.checkpoint["meta"]
    for pattern, replacement, expected in VARIANTS:
        text, changes = re.subn(pattern, replacement, meta["cfg"])
        assert changes, pattern
        blueprint = read_openmmlab({"meta": {**meta, "cfg": text}, "state_dict": {}}).blueprint
        assert expected.items() <= blueprint["options"].items(), pattern


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("num_fcs=2", "num_fcs=3", r"ffn_cfg has num_fcs=3; 2 is needed"),
        ("type='ReLU'", "type='GELU'", r"has act_cfg=.*'GELU'.*; ReLU is needed"),
        ("type='GN'", "type='SyncBN'", "group norm is needed here"),
        ("mmdet.MSDeformAttnPixelDecoder", "mmdet.PixelDecoder", "MSDeformAttnPixelDecoder is here"),
        ("embed_dims=256", "embed_dims=128", "embed_dims=128; 256 is needed"),
        ("num_levels=3", "num_levels=2", "num_levels=2; 3 is needed"),
        ("num_layers=9", "num_layers=9, surprise=1", "surprise=1, which no network here has"),
        ("num_layers=9", "num_layers=9, post_norm_cfg=dict(type='LN', eps=1e-6)", "eps 1e-5 is needed"),
    ],
)
def test_what_a_configuration_has_and_we_have_not_is_refused(pattern, replacement, message, r50):
    meta = r50.checkpoint["meta"]
    text, changes = re.subn(pattern, replacement, meta["cfg"])
    assert changes
    with pytest.raises(UserError, match=message):
        read_openmmlab({"meta": {**meta, "cfg": text}, "state_dict": {}})


def test_every_tensor_of_another_structure_has_its_place(r50):
    checkpoint = r50.checkpoint
    text, state = checkpoint["meta"]["cfg"], dict(checkpoint["state_dict"])
    for old, new in (
        ("num_layers=6", "num_layers=1"),
        ("num_layers=9", "num_layers=2"),
        ("t=False", "t=True"),
    ):
        text = text.replace(old, new)
    head = "decode_head."
    state = {
        key: value
        for key, value in state.items()
        if not re.search(r"encoder\.layers\.[1-9]|transformer_decoder\.layers\.[2-9]", key)
    }
    for i in range(3):
        state[f"{head}decoder_input_projs.{i}.weight"] = torch.eye(256)[:, :, None, None]
        state[f"{head}decoder_input_projs.{i}.bias"] = torch.zeros(256)
    checkpoint = {"meta": {**checkpoint["meta"], "cfg": text}, "state_dict": state}
    with_projection = load_openmmlab(checkpoint)
    images = torch.randn(1, 3, 64, 64) * 50
    with torch.inference_mode():
        outputs = with_projection(images)
        for layer in range(3):
            with_projection.query_decoder.project[layer] = torch.nn.Identity()
        torch.testing.assert_close(with_projection(images)["logits"], outputs["logits"])
    assert len(outputs["mask_logits"]) == 3
    with pytest.raises(UserError, match=r"without a place in the network: decode_head\.surprise"):
        load_openmmlab({**checkpoint, "state_dict": state | {f"{head}surprise": torch.zeros(1)}})
    del state[f"{head}level_embed.weight"]
    with pytest.raises(UserError, match=r"the checkpoint lacks: query_decoder\.level_embedding"):
        load_openmmlab({**checkpoint, "state_dict": state})
