"""OpenMMLab checkpoints: configuration as data, old and new meta, and no tensor unaccounted for."""

import importlib
import re

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.mmseg_config import find_values, parse_config, take
from nets.importers.openmmlab import is_openmmlab, load_openmmlab, read_openmmlab
from nets.importers.placing import rename
from tests.helpers import shared_parity

CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (48, 64)
data_preprocessor = dict(
    type='SegDataPreProcessor', mean=[10.0, 20.0, 30.0], std=[1.0, 2.0, 4.0], bgr_to_rgb=True, size=crop_size)
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='ResNetV1c', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4), norm_cfg=norm_cfg, norm_eval=False, style='pytorch', contract_dilation=True),
    decode_head=dict(
        type='FCNHead', in_channels=512, in_index=3, channels=16, num_convs=1, concat_input=True,
        dropout_ratio=0.2, num_classes=3, norm_cfg=norm_cfg, align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_channels=256, in_index=2, channels=8, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=3, norm_cfg=norm_cfg, align_corners=True),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_pipeline = [dict(type='LoadAnnotations', reduce_zero_label=True)]
"""
THEIR_NAMES = [
    (r"^backbone\.body\.bn1\.", "backbone.stem.7."),
    (r"^backbone\.body\.conv1\.", "backbone.stem."),
    (r"^backbone\.body\.", "backbone."),
    (r"^decoder\.convs\.", "decode_head.convs."),
    (r"^decoder\.join\.", "decode_head.conv_cat."),
    (r"^classifier\.", "decode_head.conv_seg."),
    (r"^aux_heads\.0\.decoder\.", "auxiliary_head."),
    (r"^aux_heads\.0\.classifier\.", "auxiliary_head.conv_seg."),
    (r"^((?:decode|auxiliary)_head\..*)\.norm\.", r"\1.bn."),
]


def their_name(key):
    for pattern, new in THEIR_NAMES:
        key = re.sub(pattern, new, key)
    return key


def openmmlab_checkpoint(config=CONFIG):
    """Return a checkpoint such as MMSegmentation 1.x writes, and the network whose weights it has."""
    network = create_model(
        "fcn",
        bands=3,
        num_classes=3,
        backbone="resnet18",
        channels=16,
        num_convs=1,
        aux_heads=({"channels": 8},),
        backbone_options={"stem": "deep", "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
    )
    weights = {their_name(k): v for k, v in network.state_dict().items() if k not in ("mean", "std")}
    names = {"classes": ("road", "tree", "roof"), "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    meta = {"cfg": config, "dataset_meta": names, "epoch": 7}
    return {
        "meta": meta,
        "state_dict": weights,
        "optimizer": {"param_groups": []},
        "message_hub": {},
    }, network


def test_network_and_what_it_is_about():
    checkpoint, ours = openmmlab_checkpoint()
    assert is_openmmlab(checkpoint)
    network = load_openmmlab(checkpoint)
    assert not network.training
    assert network.mean.tolist() == [10.0, 20.0, 30.0] and network.std.tolist() == [1.0, 2.0, 4.0]
    for key, value in ours.state_dict().items():
        if key not in ("mean", "std"):
            assert torch.equal(network.state_dict()[key], value), key
    options = network.blueprint["options"]
    assert (
        network.blueprint["name"] == "fcn" and options["align_corners"] is True and options["dropout"] == 0.2
    )
    assert options["backbone_options"]["dilations"] == (1, 1, 2, 4)
    assert network.about["classes"] == {
        "names": ["road", "tree", "roof"],
        "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "table": [[1, 0], [2, 1], [3, 2]],
        "ignored": [0, 255],
    }
    assert network.about["bands"] == {"names": ["red", "green", "blue"]}
    assert network.about["crop_size"] == [48, 64] and network.about["epoch"] == 7


def test_old_meta_prefix_and_pipeline_normalization():
    config = re.sub(r"data_preprocessor = dict\(.*?\)\n(?=model)", "", CONFIG, flags=re.DOTALL)
    config = "img_norm_cfg = dict(mean=[1., 2., 3.], std=[4., 5., 6.])\n" + config
    config = config.replace("dropout_ratio=0.2", "drop_out_ratio=-1")
    checkpoint, _ = openmmlab_checkpoint()
    checkpoint["meta"] = {"config": config, "CLASSES": ["a", "b", "c"], "PALETTE": None}
    checkpoint["state_dict"] = {f"module.{k}": v for k, v in checkpoint["state_dict"].items()}
    checkpoint["state_dict"] |= {
        "ema_backbone_stem": torch.zeros(1),
        "data_preprocessor.mean": torch.zeros(3),
    }
    imported = read_openmmlab(checkpoint)
    assert imported.mean == [1.0, 2.0, 3.0] and imported.std == [4.0, 5.0, 6.0]
    assert imported.band_names == ["red", "green", "blue"]
    assert imported.blueprint["options"]["dropout"] == 0.0
    assert imported.class_names == ["a", "b", "c"]
    assert imported.colors == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]  # PASCAL VOC's
    assert "classifier.weight" in imported.state_dict


def test_bands_in_the_order_of_the_network():
    checkpoint, _ = openmmlab_checkpoint(config=CONFIG.replace("bgr_to_rgb=True", "bgr_to_rgb=False"))
    assert read_openmmlab(checkpoint).band_names == ["blue", "green", "red"]


def test_tensors_left_over_missing_or_of_another_shape():
    checkpoint, _ = openmmlab_checkpoint()
    checkpoint["state_dict"]["neck.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"without a place in the network: neck\.weight"):
        load_openmmlab(checkpoint)
    checkpoint, _ = openmmlab_checkpoint()
    checkpoint["state_dict"]["backbone.layer1.5.bn1.bias"] = torch.zeros(1)
    with pytest.raises(
        UserError, match=r"without a place in the network: backbone\.body\.layer1\.5\.bn1\.bias"
    ):
        load_openmmlab(checkpoint)
    checkpoint, _ = openmmlab_checkpoint()
    del checkpoint["state_dict"]["auxiliary_head.conv_seg.bias"]
    with pytest.raises(UserError, match=r"checkpoint lacks: aux_heads\.0\.classifier\.bias"):
        load_openmmlab(checkpoint)
    checkpoint, _ = openmmlab_checkpoint()
    checkpoint["state_dict"]["decode_head.conv_seg.bias"] = torch.zeros(4)
    with pytest.raises(UserError, match=r"classifier\.bias \(\(4,\) for \(3,\)\)"):
        load_openmmlab(checkpoint)


def test_counts_of_batches_may_be_missing():
    checkpoint, _ = openmmlab_checkpoint()
    kept = {k: v for k, v in checkpoint["state_dict"].items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(checkpoint["state_dict"])
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        whole, without = (
            load_openmmlab({**checkpoint, "state_dict": state})(images)["logits"]
            for state in (checkpoint["state_dict"], kept)
        )
    assert torch.equal(whole, without)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='FCNHead', in_channels=512", "type='NoHead', in_channels=512", "no network here .* 'NoHead'"),
        ("'ResNetV1c'", "'NoNet'", "backbone 'NoNet'; there are: .*ResNetV1c"),
        ("style='pytorch'", "style='pytorch', dcn=dict(type='DCN')", "ResNetV1c has dcn="),
        ("'SyncBN'", "'GN'", "only batch norm"),
        ("model = dict(", "modell = dict(", "defines no model"),
        ("model = dict(", "model = dict((", "cannot be parsed"),
        (
            "num_classes=3, norm_cfg=norm_cfg, align_corners=True,\n",
            "num_classes=3, out_channels=1,",
            "one logit",
        ),
    ],
)
def test_what_cannot_be_imported(old, new, message):
    assert old in CONFIG
    checkpoint, _ = openmmlab_checkpoint(config=CONFIG.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_openmmlab(checkpoint)


def test_other_checkpoints_are_told_apart():
    assert not is_openmmlab({"state_dict": {}})
    assert not is_openmmlab({"state_dict": {}, "meta": {"epoch": 1}})
    assert not is_openmmlab([])
    with pytest.raises(UserError, match="no OpenMMLab checkpoint"):
        read_openmmlab({"blueprint": {}})


def test_configuration_is_data(tmp_path):
    marker = tmp_path / "executed"
    text = f"""
a = dict(x=1, y=[-2.5, (3,)], **dict(z=None))
b = dict({{'k-1': a}})
open({str(marker)!r}, 'w')
c = open({str(marker)!r}, 'w')
d = __import__('os').getcwd()
e = [dict(reduce_zero_label=True), dict(deep=dict(reduce_zero_label=False))]
import os
"""
    values = parse_config(text)
    assert not marker.exists()
    assert values == {
        "a": {"x": 1, "y": [-2.5, (3,)], "z": None},
        "b": {"k-1": {"x": 1, "y": [-2.5, (3,)], "z": None}},
        "e": [{"reduce_zero_label": True}, {"deep": {"reduce_zero_label": False}}],
    }
    assert find_values(values, "reduce_zero_label") == [True, False]


BATCH_NORM = {"type": "SyncBN"}
FOUR = {"in_index": [0, 1, 2, 3], "channels": 64, "norm_cfg": BATCH_NORM}
# A small model of each family whose head is not one of `mmseg_heads`: backbone and decode head.
MODELS = {
    "segformer": (
        {"type": "MixVisionTransformer", "embed_dims": 32, "num_layers": [2] * 4, "num_heads": [1, 2, 5, 8]},
        {"type": "SegformerHead", **FOUR},
    ),
    "segnext": (
        {"type": "MSCAN", "embed_dims": [32, 64, 160, 256], "mlp_ratios": [8, 8, 4, 4],
         "depths": [3, 3, 5, 2], "norm_cfg": BATCH_NORM},
        {"type": "LightHamHead", "in_index": [1, 2, 3], "channels": 64,
         "norm_cfg": {"type": "GN", "num_groups": 32}},
    ),
    "setr": (
        {"type": "VisionTransformer", "img_size": 64, "out_indices": [11]},
        {"type": "SETRUPHead", "in_index": 0, "channels": 64, "norm_cfg": BATCH_NORM},
    ),
    "upernet": (
        {"type": "ResNet", "depth": 18, "norm_cfg": BATCH_NORM},
        {"type": "UPerHead", **FOUR},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_a_dropout_ratio_of_minus_one_means_none(family):
    backbone, head = MODELS[family]
    translate = importlib.import_module(f"nets.importers.mmseg_{family}").translate
    for ratio, rate in ((-1, 0.0), (0.3, 0.3)):
        model = {"backbone": backbone, "decode_head": {**head, "dropout_ratio": ratio}}
        name, options, *_ = translate(model, [])
        with torch.device("meta"):
            network = create_model(name, bands=3, num_classes=2, **options)
        assert network.blueprint["options"]["dropout"] == rate


def test_take_refuses_what_is_not_understood():
    assert take({"type": "H", "loss_decode": {"a": 1}, "k": 2}, {"k": 1, "m": 5}) == {"k": 2, "m": 5}
    with pytest.raises(UserError, match="H has n=3"):
        take({"type": "H", "n": 3}, {})


def test_rename_takes_the_first_rule_and_drops_on_none():
    tensors = {"a.1.w": torch.zeros(1), "a.2.w": torch.zeros(1), "b": torch.zeros(1)}
    rules = [(r"a\.1\.", "first."), (r"a\.(\d)\.", r"other\1."), ("b", None)]
    assert list(rename(tensors, rules)) == ["first.w", "other2.w"]
    with pytest.raises(UserError, match="that another has taken"):
        rename(tensors, [(r"a\.\d", "same"), ("b", None)])


def test_published_layouts():
    legacy = read_openmmlab(shared_parity("fcn_r50_legacy-meta").checkpoint)
    assert len(legacy.class_names) == 150 and legacy.class_names[0] == "wall" and legacy.label_offset == 1
    assert legacy.colors[0] == [120, 120, 120] and legacy.mean == [123.675, 116.28, 103.53]
    new = read_openmmlab(shared_parity("fcn_r18").checkpoint)
    assert new.class_names[0] == "road" and new.colors[0] == [128, 64, 128] and new.label_offset == 0
