"""BEiT and DPT compute what Hugging Face transformers computes, with its random weights."""

import pytest
import torch
import torch.nn.functional as F

from nets.errors import UserError
from nets.importers.huggingface import load_huggingface, read_huggingface
from tests.helpers import randomize_doubles, unnormalised

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
    "num_labels": 5,
}


def beit(**options):
    usual = {"num_hidden_layers": 7, "out_indices": [2, 3, 4, 6], "use_relative_position_bias": True}
    config = transformers.BeitConfig(**(SMALL | usual | {"auxiliary_channels": 8, **options}))
    return transformers.BeitForSemanticSegmentation(config)


def dpt(**options):
    usual = {"num_hidden_layers": 5, "backbone_out_indices": [0, 1, 2, 3], "fusion_hidden_size": 16}
    usual |= {"neck_hidden_sizes": [8, 12, 16, 20], "num_channels": 4}
    return transformers.DPTForSemanticSegmentation(transformers.DPTConfig(**(SMALL | usual | options)))


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (beit, {}),
        (beit, {"use_auxiliary_head": False, "use_absolute_position_embeddings": True, "image_size": 96}),
        (dpt, {}),
        (dpt, {"use_batch_norm_in_fusion_residual": True, "readout_type": "add", "qkv_bias": False}),
        (dpt, {"readout_type": "ignore", "use_bias_in_fusion_residual": False}),
    ],
)
def test_logits(build, options, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = randomize_doubles(build(**options))
    theirs.save_pretrained(tmp_path)
    for state in (theirs.state_dict(), safetensors.load_file(tmp_path / "model.safetensors")):
        ours = unnormalised(load_huggingface(theirs.config.to_dict(), state)).double()
        # DPT's positions may be of another size, and have to be square.
        side = 96 if build is dpt else theirs.config.image_size
        images = torch.randn(2, ours.bands, side, side, dtype=torch.float64)
        with torch.inference_mode():
            logits = F.interpolate(theirs(images).logits, (side, side), mode="bilinear")
            difference = (ours(images)["logits"] - logits).abs().max() / logits.std()
        assert difference < 1e-7


def test_names_of_transformers_4():
    theirs = beit()
    blueprint, weights = read_huggingface(theirs.config.to_dict(), theirs.state_dict())
    older = {
        r".attention.q_proj.": ".attention.attention.query.",
        r".attention.k_proj.": ".attention.attention.key.",
        r".attention.v_proj.": ".attention.attention.value.",
        r".relative_position_bias.rel": ".attention.attention.relative_position_bias.rel",
        r".attention.o_proj.": ".attention.output.dense.",
        r".mlp.fc1.": ".intermediate.dense.",
        r".mlp.fc2.": ".output.dense.",
        r"beit.layers.": "beit.encoder.layer.",
        r"fpn.fpn1.conv_transpose1.": "fpn1.0.",
        r"fpn.fpn1.normalization.": "fpn1.1.",
        r"fpn.fpn1.conv_transpose2.": "fpn1.3.",
        r"fpn.fpn2.": "fpn2.0.",
        r"psp_modules.blocks.0.conv.": "psp_modules.0.1.",
        r"psp_modules.blocks.1.conv.": "psp_modules.1.1.",
        r"psp_modules.blocks.2.conv.": "psp_modules.2.1.",
        r"psp_modules.blocks.3.conv.": "psp_modules.3.1.",
        r".psp_bottleneck.": ".bottleneck.",
        r".convolution.": ".conv.",
        r"head.normalization.": "head.bn.",
    }
    state = {}
    for key, value in theirs.state_dict().items():
        for new, old in older.items():
            key = key.replace(new, old)
        state[key.replace(".normalization.", ".bn.")] = value
    again, others = read_huggingface(theirs.config.to_dict(), state)
    assert again == blueprint and others.keys() == weights.keys()
    assert all(torch.equal(value, others[key]) for key, value in weights.items())


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (beit, {"use_relative_position_bias": False}, "use_relative_position_bias=False; True is needed"),
        (beit, {"out_indices": [1, 2, 3, 4]}, "four ascending from 2 on"),
        (dpt, {"is_hybrid": True}, "is_hybrid=True; False is needed"),
        (dpt, {"head_in_index": 0}, "head_in_index=0; -1 is needed"),
    ],
)
def test_what_is_not_here_is_said(build, change, message):
    with pytest.raises(UserError, match=message):
        read_huggingface(build().config.to_dict() | change, {})
