"""SegFormer and UPerNet compute what Hugging Face transformers computes, with its random weights."""

import pytest
import torch
import torch.nn.functional as F

from nets.errors import UserError
from nets.importers.huggingface import load_huggingface, read_huggingface
from tests.helpers import randomize_doubles, unnormalised

transformers = pytest.importorskip("transformers")
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer():
    config = transformers.SegformerConfig(num_labels=5, num_channels=4, decoder_hidden_size=32)
    return transformers.SegformerForSemanticSegmentation(config)


def upernet_swin():
    backbone = transformers.SwinConfig(out_features=STAGES)
    config = transformers.UperNetConfig(
        backbone_config=backbone, num_labels=5, hidden_size=16, auxiliary_channels=8
    )
    return transformers.UperNetForSemanticSegmentation(config)


def upernet_convnext():
    sizes = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}
    backbone = transformers.ConvNextConfig(out_features=STAGES, num_channels=2, **sizes)
    config = transformers.UperNetConfig(
        backbone_config=backbone, num_labels=5, hidden_size=16, auxiliary_num_convs=2, auxiliary_channels=8
    )
    return transformers.UperNetForSemanticSegmentation(config)


@pytest.mark.parametrize("build", [segformer, upernet_swin, upernet_convnext])
def test_logits(build, tmp_path):
    theirs = randomize_doubles(build())
    states = {"in memory": theirs.state_dict()}
    if build is not upernet_convnext:  # its names are the same on the Hub
        safetensors = pytest.importorskip("safetensors.torch")
        theirs.save_pretrained(tmp_path)
        states["on the Hub"] = safetensors.load_file(tmp_path / "model.safetensors")
    images = None
    for where, state in states.items():
        ours = unnormalised(load_huggingface(theirs.config.to_dict(), state)).double()
        images = torch.randn(1, ours.bands, 70, 100, dtype=torch.float64) if images is None else images
        with torch.inference_mode():
            expected = F.interpolate(theirs(images).logits, (70, 100), mode="bilinear")
            difference = (ours(images)["logits"] - expected).abs().max() / expected.std()
        assert difference < 1e-10, where


def test_the_blueprint_says_whose_decoder_it_is():
    theirs = segformer()
    blueprint, _ = read_huggingface(theirs.config.to_dict(), theirs.state_dict())
    assert blueprint["name"] == "segformer"
    chosen = {"backbone": "b0", "decoder": "mlp", "decoder_channels": 32, "bands": 4, "num_classes": 5}
    assert chosen.items() <= blueprint["options"].items()


def test_what_is_not_here_is_refused():
    theirs = segformer()
    config, state = theirs.config.to_dict(), theirs.state_dict()
    with pytest.raises(UserError, match="model_type 'detr' cannot be imported; there are: beit, dpt, eomt"):
        read_huggingface(config | {"model_type": "detr"}, state)
    with pytest.raises(UserError, match=r"hidden_act='relu'; 'gelu' is needed here"):
        read_huggingface(config | {"hidden_act": "relu"}, state)
    with pytest.raises(UserError, match="SegFormer has the sizes"):
        read_huggingface(config | {"depths": [1, 2, 3, 4]}, state)
    with pytest.raises(UserError, match="without a place in the network: surplus"):
        read_huggingface(config, state | {"surplus": torch.zeros(1)})
    with pytest.raises(UserError, match="backbone 'beit'; swin, convnext, resnet can be"):
        read_huggingface({"model_type": "upernet", "backbone_config": {"model_type": "beit"}}, {})
