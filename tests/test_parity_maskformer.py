"""MaskFormer computes what MMSegmentation and Hugging Face compute."""

import json
import re

import pytest
import torch
from torch import nn

from nets import create_model
from nets.errors import UserError
from nets.importers.huggingface import load_huggingface, read_huggingface
from nets.importers.openmmlab import read_openmmlab
from tests.helpers import randomize, shared_parity, unnormalised
from tools.parity_runner import run

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(scope="module")
def r50():
    return shared_parity("maskformer_r50")


@pytest.mark.parametrize("name", ["maskformer_r50", "maskformer_swin-t"])
def test_reference(name):
    reference = shared_parity(name).first
    logits = run(reference.checkpoint, reference.images)
    assert reference.difference(logits) < 1e-7


def swin(library):
    return library.SwinConfig(out_features=STAGES)


def resnet(library):
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    return library.ResNetConfig(out_features=STAGES, num_channels=4, **sizes)


SMALL = {"num_labels": 3, "fpn_feature_size": 64, "mask_feature_size": 16}
DECODER = {"decoder_layers": 2, "decoder_ffn_dim": 40, "d_model": 32, "num_queries": 7}
EQUAL_WIDTH = {**DECODER, "d_model": 512, "decoder_attention_heads": 4}


@pytest.mark.parametrize(("backbone", "decoder"), [(swin, DECODER), (resnet, EQUAL_WIDTH)])
def test_hugging_face(backbone, decoder, monkeypatch, tmp_path):
    library = pytest.importorskip("transformers")
    from transformers.models.maskformer import modeling_maskformer as theirs

    embedding = theirs.MaskFormerSinePositionEmbedding.forward
    monkeypatch.setattr(  # in float32, as the others compute positions in any precision
        theirs.MaskFormerSinePositionEmbedding,
        "forward",
        lambda self, shape, device, dtype, mask=None: embedding(self, shape, device, torch.float32, mask).to(
            dtype
        ),
    )
    own = library.DetrConfig(**decoder)
    config = library.MaskFormerConfig(backbone_config=backbone(library), decoder_config=own, **SMALL)
    network = randomize(library.MaskFormerForInstanceSegmentation(config)).eval()
    network.save_pretrained(tmp_path)
    safetensors = pytest.importorskip("safetensors.torch")
    on_the_hub = json.loads((tmp_path / "config.json").read_text())
    states = {
        "in memory": (config.to_dict(), network.state_dict()),
        "on the Hub": (on_the_hub, safetensors.load_file(tmp_path / "model.safetensors")),
    }
    network.double()
    images = torch.randn(2, config.backbone_config.num_channels, 70, 100, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(images)
    for where, (described, state) in states.items():
        ours = unnormalised(load_huggingface(described, state)).double()
        with torch.inference_mode():
            outputs = ours(images)
        for name, other in (
            ("mask_logits", expected.masks_queries_logits),
            ("class_logits", expected.class_queries_logits),
        ):
            difference = (outputs[name][-1] - other).abs().max() / other.std()
            assert difference < 1e-10, (where, name)


def test_the_names_of_transformers_4():
    library = pytest.importorskip("transformers")
    own = library.DetrConfig(**DECODER)
    config = library.MaskFormerConfig(backbone_config=resnet(library), decoder_config=own, **SMALL)
    state = library.MaskFormerForInstanceSegmentation(config).state_dict()
    older = {}
    for key, value in state.items():
        if ".decoder.layers." in key:
            key = key.replace(".o_proj.", ".out_proj.").replace(".mlp.", ".")
        older[key] = value
    assert len(older.keys() - state.keys()) == 16
    weights = [read_huggingface(config.to_dict(), each)[1] for each in (state, older)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_config": {"model_type": "dinat"}}, "MaskFormer has backbone 'dinat'; swin, convnext"),
        ({"decoder_config": {"model_type": "other"}}, "the decoder 'other'; 'detr' is needed"),
        ({"decoder_config": {"model_type": "detr", "auxiliary_loss": True}}, "auxiliary_loss=True; False"),
    ],
)
def test_what_is_not_here_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        read_huggingface({"model_type": "maskformer", "decoder_config": {"model_type": "detr"}} | changes, {})


ENCODER = """type='mmdet.TransformerEncoderPixelDecoder', encoder=dict(num_layers=2, layer_cfg=dict(
self_attn_cfg=dict(embed_dims=256, num_heads=4, dropout=0.1),
ffn_cfg=dict(embed_dims=256, feedforward_channels=64, num_fcs=2, act_cfg=dict(type='ReLU')))),
positional_encoding_cfg=dict(num_feats=128, normalize=True)"""
# Change of the configuration's text -> the builder's options that follow.
VARIANTS = [
    ("num_queries=100", "num_queries=5", {"queries": 5}),
    ("num_classes=150", "num_classes=2", {"num_classes": 2}),
    ("_project=False", "_project=True", {"project": True}),
    ("(feat|out)_channels=256", r"\1_channels=256", {"channels": 256, "mask_channels": 256}),
    ("num_layers=6", "num_layers=2", {"decoder_layers": 2}),
    ("feedforward_channels=2048", "feedforward_channels=8", {"feedforward": 8}),
    ("num_heads=8", "num_heads=4", {"heads": 4}),
    ("num_groups=32", "num_groups=16", {"norm_groups": 16}),
    ("attn_drop=0.1", "attn_drop=0.3", {"dropout": 0.3}),
    ("depth=50", "depth=101", {"backbone": "resnet101"}),
    ("normalize=True, ", "", {"positions": {"normalize": False}}),
    (
        r"type='mmdet.PixelDecoder'",
        ENCODER,
        {"pixel_layers": 2, "pixel_heads": 4, "pixel_feedforward": 64, "pixel_positions": None},
    ),
]


def read_changed(reference, pattern, replacement, state):
    meta = reference.checkpoint["meta"]
    text, changes = re.subn(pattern, replacement, meta["cfg"])
    assert changes, pattern
    return read_openmmlab({"meta": {**meta, "cfg": text}, "state_dict": state})


def test_every_option_of_the_configuration_is_read(r50):
    for pattern, replacement, expected in VARIANTS:
        options = read_changed(r50, pattern, replacement, {}).blueprint["options"]
        assert expected.items() <= options.items(), pattern


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("num_fcs=2", "num_fcs=3", r"ffn_cfg has num_fcs=3; 2 is needed"),
        ("type='GN'", "type='SyncBN'", "group norm is needed here"),
        ("mmdet.PixelDecoder", "mmdet.MSDeformAttnPixelDecoder", "TransformerEncoderPixelDecoder is here"),
        ("out_channels=256", "out_channels=128", "out_channels=128; 256, its feat_channels, is needed"),
        ("num_layers=6", "num_layers=6, surprise=1", "surprise=1, which no network here has"),
    ],
)
def test_what_a_configuration_has_and_we_have_not_is_refused(pattern, replacement, message, r50):
    with pytest.raises(UserError, match=message):
        read_changed(r50, pattern, replacement, {})


def test_the_tensors_of_attention_layers_have_their_places(r50):
    """Of the names that MMDetection's DetrTransformerEncoder gives."""
    head, state = "decode_head.pixel_decoder.", dict(r50.checkpoint["state_dict"])
    for kind in ("conv.weight", "gn.weight", "gn.bias"):
        state[f"{head}encoder_out_proj.{kind}"] = state.pop(f"{head}last_feat_conv.{kind}")
    for kind in ("weight", "bias"):
        state[f"{head}encoder_in_proj.{kind}"] = state.pop(f"decode_head.decoder_input_proj.{kind}")
    for i in range(2):
        layer = f"{head}encoder.layers.{i}"
        linear = ("self_attn.attn.in_proj_", "self_attn.attn.out_proj.", "ffn.layers.0.0.", "ffn.layers.1.")
        for part in (*linear, "norms.0.", "norms.1."):
            state |= {f"{layer}.{part}{kind}": torch.zeros(3) for kind in ("weight", "bias")}
    imported = read_changed(r50, r"type='mmdet.PixelDecoder'", ENCODER, state)
    with torch.device("meta"):
        network = create_model("maskformer", **imported.blueprint["options"])
    assert imported.state_dict.keys() == network.state_dict().keys() - {"mean", "std"}


def test_attention_layers_equal_pytorchs():
    network = create_model("maskformer", bands=1, num_classes=2, backbone="resnet18", pixel_layers=1)
    ours = randomize(network.pixel_decoder.layers[0]).eval()
    theirs = nn.TransformerEncoderLayer(256, 8, 2048, batch_first=True).eval()
    with torch.no_grad():
        parts = (ours.attention.query, ours.attention.key, ours.attention.value)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.self_attn.out_proj.load_state_dict(ours.attention.project.state_dict())
        for name, own in (
            ("linear1", ours.feedforward.expand),
            ("linear2", ours.feedforward.contract),
            ("norm1", ours.norms[0]),
            ("norm2", ours.norms[1]),
        ):
            getattr(theirs, name).load_state_dict(own.state_dict())
        tokens = torch.randn(2, 6, 256)
        # PyTorch's knows no positions.
        torch.testing.assert_close(ours(tokens, torch.zeros(6, 256)), theirs(tokens), rtol=1e-4, atol=1e-4)
