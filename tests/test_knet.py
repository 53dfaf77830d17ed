"""K-Net computes what MMSegmentation computes, and learns from every stage."""

import re

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.openmmlab import read_openmmlab
from nets.registry import get_recipe
from tests.helpers import shared_parity
from tools.parity_runner import run
from utils.loss_terms import parse_loss
from utils.training.criterion import Criterion, ExtraLosses
from utils.training.pixel_losses import cross_entropy

SMALL = {"backbone": "resnet18", "channels": 32, "kernel_channels": 16, "feedforward": 32}


@pytest.fixture(scope="module")
def fcn():
    return shared_parity("knet_r50_fcn")


@pytest.mark.parametrize("name", ["knet_r50_fcn", "knet_r50_upernet"])
def test_reference(name):
    reference = shared_parity(name)
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def test_every_stage_has_its_loss():
    network = create_model("knet", bands=2, num_classes=3, stages=4, aux=True, **SMALL).train()
    outputs = network(torch.randn(2, 2, 64, 64))
    masks = torch.randint(-1, 3, (2, 64, 64))
    assert len(outputs["stage_logits"]) == 4 and len(outputs["aux"]) == 1
    recipe = get_recipe("knet")["paper"]
    criterion = ExtraLosses(Criterion(recipe["loss"], None, recipe["aux_weight"]), recipe["extra_losses"])
    total, main = criterion(outputs, masks)
    losses = [cross_entropy(logits, masks) for logits in [outputs["logits"], *outputs["stage_logits"]]]
    torch.testing.assert_close(total, sum(losses) + 0.4 * cross_entropy(outputs["aux"][0], masks))
    torch.testing.assert_close(main, losses[0])
    assert parse_loss("ce")[0].weight == 1
    assert "stage_logits" not in network.eval()(torch.randn(2, 2, 64, 64))


def test_the_first_stage_by_hand():
    network = create_model("knet", bands=1, num_classes=3, stages=1, transform=False, **SMALL).eval().double()
    stage, x = network.stages[0], torch.randn(2, 32, 5, 6, dtype=torch.float64)
    logits = network.classifier(x)
    kernels = network.classifier.weight.flatten(1)
    made, _ = stage(x, kernels.expand(2, -1, -1), logits)
    for image in range(2):
        masks = logits[image].softmax(0)
        rows = []
        for k in range(3):
            found = (masks[k] * x[image]).sum((1, 2))
            halves = [
                stage.update(found[None, part], kernels[None, k, part]) for part in (slice(16), slice(16, 32))
            ]
            rows.append(torch.cat(halves, dim=1)[0])
        updated = torch.stack(rows)[None]
        updated = stage.attention_norm(updated + stage.attention(updated, updated, updated))
        updated = stage.feedforward_norm(updated + stage.feedforward(updated))
        weights = stage.mask_weights(stage.mask_layers(updated))[0]
        expected = (weights @ x[image].flatten(1)).view(3, 5, 6)
        torch.testing.assert_close(made[image], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "stages=0 is given; at least 1"),
        ({"kernel_channels": 24}, "channels=32 is given; it must be a multiple of kernel_channels=24"),
        ({"decoder": "upernet", "output_stride": 8}, "output_stride=8 is given with decoder=upernet"),
        ({"decoder": "pspnet", "drop_path": 0.1}, "drop_path=0.1 is given with decoder=pspnet"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        create_model("knet", bands=1, num_classes=2, **SMALL | options)


def read_changed(reference, pattern, replacement, state):
    meta = reference.checkpoint["meta"]
    text, changes = re.subn(pattern, replacement, meta["cfg"])
    assert changes, pattern
    return read_openmmlab({"meta": {**meta, "cfg": text}, "state_dict": state})


# Change of the configuration's text -> the builder's options that follow.
VARIANTS = [
    ("num_heads=8", "num_heads=4", {"heads": 4}),
    ("num_mask_fcs=1", "num_mask_fcs=3", {"mask_layers": 3}),
    ("feedforward_channels=2048", "feedforward_channels=8", {"feedforward": 8}),
    ("with_ffn=True", "with_ffn=False", {"feedforward": 0}),
    ("dropout=0.0", "dropout=0.2", {"stage_dropout": 0.2}),
    (r"feat_transform_cfg=dict\(\s*act_cfg=None, conv_cfg=dict\(type='Conv2d'\)\)", "feat_transform_cfg=None",
     {"transform": False}),
    (r"(in|out|feat)_channels=256", r"\1_channels=128", {"kernel_channels": 128}),
    ("type='KernelUpdator'", "type='KernelUpdator', gate_norm_act=True", {"gate_norm": True}),
    ("type='KernelUpdator'", "type='KernelUpdator', gate_sigmoid=False", {"gate_sigmoid": False}),
    ("type='KernelUpdator'", "type='KernelUpdator', activate_out=True", {"activate_out": True}),
    ("num_convs=2", "num_convs=1", {"decoder": "fcn", "stages": 3}),
    ("align_corners=False", "align_corners=True", {"align_corners": True}),
]  # fmt: skip


def test_every_option_of_the_configuration_is_read(fcn):
    for pattern, replacement, expected in VARIANTS:
        options = read_changed(fcn, pattern, replacement, {}).blueprint["options"]
        assert expected.items() <= options.items(), pattern
    assert read_changed(fcn, "num_convs=2", "num_convs=1", {}).blueprint["options"]["decoder_options"] == {
        "version": "dilated", "num_convs": 1, "kernel_size": 3, "dilation": 1, "concat_input": True,
        "in_index": (3,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("num_ffn_fcs=2", "num_ffn_fcs=3", "num_ffn_fcs=3; 2 is needed"),
        ("conv_kernel_size=1", "conv_kernel_size=3", "conv_kernel_size=3; 1 is needed"),
        ("with_ffn=True", "feat_gather_stride=2", "feat_gather_stride=2; 1 is needed"),
        ("with_ffn=True", "mask_transform_stride=2", "mask_transform_stride=2; 1 is needed"),
        ("act_cfg=None", "kernel_size=3", "kernel_size=3; 1 is needed"),
        (r"type='Conv2d'\)\)", "type='Conv2d'), norm_cfg=dict(type='BN'))", "a Conv2d alone is needed"),
        ("feat_channels=256", "feat_channels=64", "one width for all is needed"),
        ("type='LN'", "type='BN'", "layer norm is needed"),
        ("out_channels=512", "out_channels=256", "out_channels=256; 512 is needed"),
        (
            "type='FCNHead'",
            "type='LRASPPHead'",
            "'LRASPPHead'; here are FCNHead, PSPHead, ASPPHead, UPerHead",
        ),
        ("type='KernelUpdateHead'", "type='KernelUpdateHead', surprise=1", "surprise=1, which no network"),
    ],
)
def test_what_a_configuration_has_and_we_have_not_is_refused(pattern, replacement, message, fcn):
    with pytest.raises(UserError, match=message):
        read_changed(fcn, pattern, replacement, {})
