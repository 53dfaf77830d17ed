"""PointRend computes what MMSegmentation computes, refines where it is unsure, and learns at points."""

import re

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.openmmlab import read_openmmlab
from nets.models.pointrend import certainty
from nets.registry import get_recipe
from tests.helpers import randomize, shared_parity
from tools.parity_runner import run
from utils.data.labels import IGNORE
from utils.training.criterion import Criterion, ExtraLosses
from utils.training.pixel_losses import cross_entropy
from utils.training.point_loss import points as point_loss

SMALL = {"backbone": "resnet18", "channels": 32, "pyramid_channels": 32, "point_channels": 16}


def build(**options):
    torch.manual_seed(0)
    return randomize(create_model("pointrend", bands=2, num_classes=3, **SMALL | options)).double()


def coarse_and_fine(network, images):
    levels = network.decoder.pyramid(network.backbone(images))
    coarse = create_model(
        "sem_fpn", bands=2, num_classes=3, **{k: SMALL[k] for k in list(SMALL)[:3]}
    ).double()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("point_head")}
    coarse.load_state_dict(state)
    return coarse.eval().decode(network.backbone(images))["logits"], levels[0]


@pytest.fixture(scope="module")
def r50():
    return shared_parity("pointrend_r50")


def test_reference(r50):
    assert r50.difference(run(r50.checkpoint, r50.images)) < 1e-7


def test_the_points_that_are_refined():
    network = build(subdivisions=1, subdivision_points=40).eval()
    images = torch.randn(2, 2, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        refined = network.decode(network.backbone(images))["logits"]
        coarse, fine = coarse_and_fine(network, images)
        large = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        assert refined.shape == large.shape == (2, 3, 32, 48)
        changed = (refined != large).any(1)
        assert changed.flatten(1).sum(1).tolist() == [40, 40]
        sure = certainty(large.flatten(2), "multiclass").view(2, 32, 48)
        for image in range(2):
            assert sure[image][changed[image]].max() <= sure[image][~changed[image]].min()
            row, column = changed[image].nonzero()[7].tolist()
            place = torch.tensor([[[(column + 0.5) / 48, (row + 0.5) / 32]]], dtype=torch.float64)
            own = [each[image : image + 1] for each in (coarse, fine)]
            expected = network.classify(own[0], [own[1]], place)[0, :, 0]
            torch.testing.assert_close(refined[image, :, row, column], expected, rtol=1e-5, atol=1e-6)
        unrefined = build(subdivisions=0).eval()
        unrefined.load_state_dict(network.state_dict())
        torch.testing.assert_close(unrefined.decode(unrefined.backbone(images))["logits"], coarse)


def test_certainty_by_hand():
    logits = torch.tensor([[[5.0, 1.0], [2.0, -1.5], [4.5, 0.0]]])
    assert certainty(logits, "multiclass").tolist() == [[0.5, 1.0]]
    assert certainty(logits, "multilabel").tolist() == [[2.0, 0.0]]
    assert certainty(logits[:, :1], "multiclass").tolist() == [[5.0, 1.0]]


def test_training_gives_points_where_it_is_unsure():
    network = build(points=400).train()
    outputs = network(torch.randn(2, 2, 64, 64, dtype=torch.float64))
    assert outputs["points"].shape == (2, 400, 2) and outputs["point_logits"].shape == (2, 3, 400)
    assert outputs["points"].min() >= 0 and outputs["points"].max() <= 1
    logits = outputs["logits"].detach()
    columns, rows = (outputs["points"] * 64).long().clamp(max=63).unbind(-1)
    sure = certainty(logits.flatten(2), "multiclass")
    chosen = sure.gather(1, rows * 64 + columns)
    assert chosen[:, :300].mean() < 0.7 * sure.mean() and chosen[:, 300:].mean() > 0.8 * sure.mean()
    assert not outputs["points"].requires_grad


@pytest.mark.parametrize("several", [False, True], ids=["multiclass", "multilabel"])
def test_the_loss_by_hand(several):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, 5, 2)
    places[0, 0] = torch.tensor([1.0, 1.0])  # the last pixel's far corner
    masks = torch.randint(0, 2, (2, 3, 6, 8)) if several else torch.randint(0, 3, (2, 6, 8))
    masks[1, ..., :3, :] = IGNORE
    places[1, 0] = torch.tensor([0.3, 0.2])
    found = []
    for image in range(2):
        for x, y in places[image].tolist():
            found.append(masks[image, ..., min(int(6 * y), 5), min(int(8 * x), 7)])
    truth = torch.stack(found).unflatten(0, (2, 5))
    truth = truth.movedim(-1, 1) if several else truth
    weights = torch.tensor([0.5, 2.0, 1.0])
    loss = point_loss([logits, places], masks, weights)
    torch.testing.assert_close(loss, cross_entropy(logits[..., None], truth[..., None], weights))
    gradient = torch.autograd.grad(loss, logits)[0]
    assert (gradient[1, :, 0] == 0).all() and (gradient[0] != 0).any()
    assert point_loss([logits, places], torch.full_like(masks, IGNORE)) == 0


def test_both_losses_weigh_the_same():
    outputs = build(points=30).train()(torch.randn(2, 2, 64, 64, dtype=torch.float64))
    masks = torch.randint(-1, 3, (2, 64, 64))
    recipe = get_recipe("pointrend")["paper"]
    total, main = ExtraLosses(Criterion(recipe["loss"]), recipe["extra_losses"])(outputs, masks)
    torch.testing.assert_close(main, cross_entropy(outputs["logits"], masks))
    torch.testing.assert_close(total - main, point_loss([outputs["point_logits"], outputs["points"]], masks))


@pytest.mark.parametrize("option", ["points", "subdivision_points", "scale"])
def test_mistakes(option):
    with pytest.raises(UserError, match=f"{option}=0 is given; at least 1 is needed"):
        create_model("pointrend", bands=1, num_classes=2, **SMALL, **{option: 0})


def read_changed(reference, pattern, replacement):
    meta = reference.checkpoint["meta"]
    text, changes = re.subn(pattern, replacement, meta["cfg"])
    assert changes, pattern
    return read_openmmlab({"meta": {**meta, "cfg": text}, "state_dict": {}})


# Change of the configuration's text -> the builder's options that follow.
VARIANTS = [
    ("num_fcs=3", "num_fcs=1", {"point_layers": 1}),
    ("pred_each_layer=True", "pred_each_layer=False", {"coarse_each": False}),
    ("num_points=2048", "num_points=20", {"points": 20}),
    ("subdivision_num_points=8196", "subdivision_num_points=20", {"subdivision_points": 20}),
    ("subdivision_steps=2", "subdivision_steps=3", {"subdivisions": 3}),
    ("scale_factor=2", "scale_factor=4", {"scale": 4}),
    ("channels=256,\\s+coarse", "channels=64, coarse", {"point_channels": 64, "channels": 128}),
    (r"in_channels=\[\s+256,\s+\],\s+in_index=\[\s+0,\s+\]", "in_channels=[256, 256], in_index=[0, 2]",
     {"point_maps": (0, 2)}),
    ("align_corners=False", "align_corners=True", {"align_corners": True}),
    ("depth=50", "depth=101", {"backbone": "resnet101"}),
]  # fmt: skip


def test_every_option_of_the_configuration_is_read(r50):
    for pattern, replacement, expected in VARIANTS:
        options = read_changed(r50, pattern, replacement).blueprint["options"]
        assert expected.items() <= options.items(), pattern


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("num_fcs=3", "num_fcs=3, norm_cfg=dict(type='BN')", "Conv1d without norm is needed"),
        ("num_fcs=3", "num_fcs=3, act_cfg=dict(type='GELU')", "other convolutions or activations"),
        ("num_fcs=3", "surprise=3", "surprise=3, which no network here has"),
        ("scale_factor=2", "scale_factor=1.5", "scale_factor=1.5; a whole number is needed"),
        ("type='FPNHead'", "type='FCNHead'", "is needed behind one FPNHead"),
        (
            "align_corners=False,\\s+channels=256",
            "align_corners=True, channels=256",
            "differ in align_corners",
        ),
    ],
)
def test_what_a_configuration_has_and_we_have_not_is_refused(pattern, replacement, message, r50):
    with pytest.raises(UserError, match=message):
        read_changed(r50, pattern, replacement)
