"""SeMask computes what its authors' code computes, and its checkpoints are known by their tensors alone."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from nets.backbones.semask import SemanticAttention, SemanticLayer
from nets.errors import UserError
from nets.importers.foreign import is_known, load_foreign
from nets.importers.openmmlab import load_openmmlab, read_tensors
from nets.registry import get_recipe
from tests.helpers import shared_parity, unnormalised
from tools.parity_runner import run
from utils.training.criterion import Criterion

# Our names -> the authors', for checkpoints of every size without their code.
THEIRS = [
    (
        r"decoder\.levels\.(\d)\.(\d)\.conv\.",
        lambda m: f"decode_head.scale_heads.{m[1]}.{2 * int(m[2])}.conv.",
    ),
    (r"decoder\.levels\.(\d)\.(\d)\.norm\.", lambda m: f"decode_head.scale_heads.{m[1]}.{2 * int(m[2])}.bn."),
    (r"classifier\.", r"decode_head.conv_seg."),
    (r"backbone\.semantic\.(\d)\.norm\.", r"backbone.layers.\1.semantic_layer.norm1."),
    (r"backbone\.semantic\.(\d)\.blocks\.", r"backbone.layers.\1.semantic_layer.class_injection."),
    (r"backbone\.norms\.(\d)\.", r"backbone.norm\1."),
    (r"backbone\.body\.layers_(\d)\.downsample\.", lambda m: f"backbone.layers.{int(m[1]) - 1}.downsample."),
    (r"backbone\.body\.layers_(\d)\.", r"backbone.layers.\1."),
    (r"backbone\.body\.", "backbone."),
]
PARTS = {".query.": ".mlp_cls_q.", ".key.": ".mlp_cls_k.", ".value.": ".mlp_v.", ".project.": ".mlp_res."}
TEXT = """
model = dict(
    backbone=dict(type='SeMaskSwinTransformer', num_cls=3, embed_dim=96, depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24], window_size=7, sem_window_size=5, num_sem_blocks=[1, 2, 1, 1],
        drop_path_rate=0.1, ape=False, use_checkpoint=True),
    decode_head=dict(type='BranchFPNHead', in_channels=[96, 192, 384, 768], in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32], channels=32, dropout_ratio=0.2, cate_w=0.4, num_classes=3,
        norm_cfg=dict(type='SyncBN'), align_corners=True))
img_norm_cfg = dict(mean=[1., 2., 3., 4.], std=[5., 6., 7., 8.], to_rgb=True)
"""


def theirs(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the network's weights by the authors' names."""
    state = {}
    for name, tensor in network.state_dict().items():
        pattern, new = next((pair for pair in THEIRS if re.match(pair[0], name)), ("$", ""))
        renamed = re.sub(pattern, new, name)
        if ".class_injection." in renamed:
            renamed = re.sub(r"\.\w+\.(?=weight|bias)", lambda m: PARTS[m[0]], renamed)
        state[renamed] = tensor
    return {name: tensor for name, tensor in state.items() if name not in ("mean", "std")}


def test_reference():
    reference = shared_parity("semask_swin-t_fpn")
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


@pytest.mark.parametrize("size", ["swin_t", "swin_s", "swin_b", "swin_l"])
@pytest.mark.parametrize(("classes", "bands"), [(19, 3), (150, 5)])
def test_every_size_is_known_by_its_tensors(size, classes, bands):
    with torch.device("meta"):
        network = create_model("semask", bands=bands, num_classes=classes, backbone=size)
        state = theirs(network)
    state["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    assert is_known({"meta": {}, "state_dict": state})
    blueprint, weights, _ = read_tensors(state)
    own = {name: tensor for name, tensor in network.state_dict().items() if name not in ("mean", "std")}
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in own.items()
    }
    options = blueprint["options"]
    window = 7 if size in ("swin_t", "swin_s") else 12
    assert (options["backbone"], options["window"], options["semantic_window"]) == (size, window, window)
    assert (options["bands"], options["num_classes"]) == (bands, classes)
    everywhere = classes == 150 and size != "swin_b"
    assert options["global_stages"] == network.blueprint["options"]["global_stages"] == 2 * everywhere


def test_the_authors_configuration_is_read():
    options = {"semantic_window": 5, "semantic_blocks": (1, 2, 1, 1), "channels": 32, "align_corners": True}
    network = create_model("semask", bands=4, num_classes=3, **options).eval()
    checkpoint = {"meta": {"config": TEXT}, "state_dict": theirs(network)}
    imported = load_openmmlab(checkpoint)
    assert {key: imported.blueprint["options"][key] for key in options} == options
    assert imported.blueprint["options"]["drop_path"] == 0.1 and imported.mean.tolist() == [
        1.0,
        2.0,
        3.0,
        4.0,
    ]
    images = torch.randn(1, 4, 33, 40)
    with torch.inference_mode():
        assert torch.equal(unnormalised(imported)(images)["logits"], network(images)["logits"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_cls=3", "num_cls=4", "num_cls=4; 3 is needed"),
        ("ape=False", "ape=True", "ape=True; False is needed"),
        ("window_size=7", "window_size=8", "sizes"),
        ("channels=32", "channels=32, sampler2=1", "sampler2=1"),
        ("[4, 8, 16, 32], channels", "[4, 8, 16, 16], channels", "feature_strides"),
        (
            "align_corners=True))",
            "align_corners=True), auxiliary_head=dict(type='FCNHead'))",
            "auxiliary_head",
        ),
    ],
)
def test_what_is_not_here_is_said(old, new, message):
    assert old in TEXT
    with pytest.raises(UserError, match=message):
        load_openmmlab({"meta": {"config": TEXT.replace(old, new)}, "state_dict": {}})


def test_tensors_that_contradict_each_other_are_refused():
    checkpoint = shared_parity("semask_swin-t_fpn").checkpoint
    state = dict(checkpoint["state_dict"])
    state["decode_head.conv_seg.weight"] = state["decode_head.conv_seg.weight"][:7]
    with pytest.raises(UserError, match="num_cls=150; 7 is needed"):
        load_foreign({"state_dict": state})


def test_wrong_options_are_refused():
    for options, message in [
        ({"semantic_blocks": (1, 1, 0, 1)}, "four numbers from 1"),
        ({"global_stages": 5}, "0 to 4"),
        ({"window": 12}, "swin_t has windows of 7"),
        ({"window": 8, "backbone": "swin_b"}, "7 and 12"),
    ]:
        with pytest.raises(UserError, match=message):
            create_model("semask", bands=3, num_classes=2, **options)


@torch.inference_mode()
def test_semantic_attention_by_hand():
    attention = SemanticAttention(6, 3).double().eval()
    attention.gamma.fill_(0.5)
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    tokens, scores = attention(x)
    query, key, value = attention.query(x[0]), attention.key(x[0]), attention.value(x[0])
    torch.testing.assert_close(scores[0], query)
    for i in range(5):
        shares = torch.stack([(query[i] * key[j]).sum() for j in range(5)]).exp()
        mixed = sum(share / shares.sum() * value[j] for j, share in enumerate(shares))
        torch.testing.assert_close(tokens[0, i], x[0, i] + 0.5 * attention.project(mixed))


@torch.inference_mode()
def test_windows_see_unmasked_zeros_and_the_whole_map_does_not():
    layer = SemanticLayer(6, 3, blocks=1, window=4).double().eval()
    layer.blocks[0].gamma.fill_(0.7)
    x = torch.randn(1, 6, 7, 6, dtype=torch.float64)
    tokens, scores = layer(x)
    padded = F.pad(layer.norm(x), (0, 0, 0, 1, 0, 2))
    corner = layer.blocks[0](padded[:, 4:8, 4:8].reshape(1, 16, 6))
    torch.testing.assert_close(tokens[:, 4:, 4:], corner[0].reshape(1, 4, 4, 6)[:, :2, :3])
    torch.testing.assert_close(scores[:, 4:, 4:], corner[1].reshape(1, 4, 4, 3)[:, :2, :3])
    layer.window = None
    whole = layer.blocks[0](layer.norm(x).reshape(1, 42, 6))[0].reshape(x.shape)
    torch.testing.assert_close(layer(x)[0], whole)


def test_the_stages_scores_are_an_auxiliary_output_of_weight_0_4():
    network = create_model("semask", bands=3, num_classes=4, drop_path=0.0, dropout=0.0)
    images = torch.randn(2, 3, 64, 64)
    found = {}
    for i, layer in enumerate(network.backbone.semantic):
        layer.register_forward_hook(lambda _, __, out, i=i: found.update({i: out[1].permute(0, 3, 1, 2)}))
    outputs = network.train()(images)
    total = 0
    for i in range(4):
        scores = found[i]
        for _ in range(i):
            scores = F.interpolate(scores, scale_factor=2, mode="bilinear")
        total = total + scores
    total = F.interpolate(total, (64, 64), mode="bilinear")
    torch.testing.assert_close(outputs["aux"], [total])
    assert "aux" not in network.eval()(images)
    recipe, masks = get_recipe("semask")["paper"], torch.randint(0, 4, (2, 64, 64))
    loss, main = Criterion(recipe["loss"], aux_weight=recipe["aux_weight"])(outputs, masks)
    torch.testing.assert_close(loss - main, 0.4 * F.cross_entropy(total, masks))
