"""The real-time networks compute what MMSegmentation computes, in double precision."""

import copy

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.openmmlab import load_openmmlab
from nets.importers.placing import rename
from tests.helpers import changed, shared_parity
from tools.parity_runner import run

REFERENCES = [
    "bisenetv1_r18",
    "bisenetv2",
    "cgnet",
    "ddrnet_23-slim",
    "erfnet",
    "fast_scnn",
    "icnet_r18",
    "pidnet-s",
    "stdc1",
]


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name):
    reference = shared_parity(name).first
    images = reference.images
    assert reference.difference(run(reference.checkpoint, images)) < 1e-7


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ddrnet_23-slim", "channels=32", "channels=32, deep_stem=True", "deep_stem=True, which no network"),
        ("pidnet-s", "in_channels=128", "in_channels=256", "128, four times the"),
        ("cgnet", "type='CGNet'", "type='CGNet', act_cfg=dict(type='ReLU')", "PReLU is needed"),
        ("fast_scnn", "type='FastSCNN'", "type='FastSCNN', dw_act_cfg=dict(type='GELU')", "ReLU or None"),
        (
            "stdc1",
            "act_cfg=dict(type='ReLU')",
            "act_cfg=dict(type='GELU')",
            "other convolutions or activations",
        ),
        ("icnet_r18", "type='ICNeck'", "type='ICNeck', act_cfg=dict(type='GELU')", "other convolutions or"),
        (
            "ddrnet_23-slim",
            "norm_cfg=dict(requires_grad=True, type='SyncBN')",
            "norm_cfg=dict(eps=1e-3, type='SyncBN')",
            "eps=1e-5 is needed",
        ),
    ],
)
def test_what_is_not_here_is_said(name, old, new, message):
    with pytest.raises(UserError, match=message):
        load_openmmlab(changed(shared_parity(name).checkpoint, old, new))


def test_what_is_for_training_alone_is_placed():
    pid = load_openmmlab(shared_parity("pidnet-s").checkpoint).train()
    outputs = pid(torch.randn(2, 3, 64, 64))
    assert outputs["boundary"].shape == (2, 1, 64, 64) and outputs["aux"][0].shape == (2, 19, 64, 64)
    stdc = load_openmmlab(shared_parity("stdc1").checkpoint).train()
    outputs = stdc(torch.randn(2, 3, 64, 64))
    assert outputs["detail"].shape == (2, 2, 64, 64) and len(outputs["aux"]) == 2
    theirs = shared_parity("stdc1").checkpoint["state_dict"]["auxiliary_head.2.conv_seg.weight"]
    assert torch.equal(stdc.detail_head.classifier.weight, theirs)


def test_blocks_that_add_stand_in_the_file_twice():
    # As MMSegmentation's STDCModule with fusion_type="add" registers its halving convolution.
    from nets.importers.mmseg_stdc import _rules

    ours = create_model("stdc", bands=3, num_classes=2, bottleneck="add").backbone.state_dict()
    theirs = {}
    for key in ours:
        if key.startswith("stages.2.0.convs.0.conv"):
            theirs["backbone.backbone.stages.2.0.layers.0.0.conv.weight"] = ours[key]
        if key.startswith("stages.2.0.down.conv"):
            theirs["backbone.backbone.stages.2.0.downsample.conv.weight"] = ours[key]
            theirs["backbone.backbone.stages.2.0.layers.0.1.conv.weight"] = copy.copy(ours[key])
    assert set(rename(theirs, _rules({"bottleneck": "add"}))) == {
        "backbone.stages.2.0.convs.0.conv.weight",
        "backbone.stages.2.0.down.conv.weight",
    }
