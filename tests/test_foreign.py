"""Files of other projects: recognised by content, read without running anything, converted with a report."""

import json
import os
from collections import OrderedDict

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from nets import create_model
from nets.errors import UserError
from nets.importers.restricted_pickle import Inert, read_restricted
from nets.importers.weight_files import read_weight_file, weights_in
from Structure import load_network
from tests.helpers import shared_parity
from tools import import_weights
from utils.checkpoint import load_matching

LAYOUTS = [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Config(dict):
    pass


class History(list):
    pass


class Record:
    def __init__(self):
        self.value = 3


def convert(*arguments) -> list[str]:
    return import_weights.convert(import_weights.read_options([str(each) for each in arguments]))


def same(network, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_tensors_and_containers_are_built(layout, tmp_path):
    made = tmp_path / "made_by_the_file"
    values = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        base=values, view=values[1:].t(), half=torch.ones(2, dtype=torch.bfloat16), count=torch.tensor(3),
        parameter=nn.Parameter(torch.ones(2)), empty=torch.empty(0), flag=torch.tensor([True]),
    )  # fmt: skip
    state._metadata = {"": {"version": 1}}
    objects = [Malicious(made), Config(a=1), History([1]), Record(), os.system, torch.device("cpu")]
    content = {"state_dict": state, "meta": {"objects": objects, "cfg": "x = 1", "size": torch.Size([2])}}
    torch.save(content, tmp_path / "file.pth", **layout)
    read, replaced = read_restricted(tmp_path / "file.pth")
    assert not made.exists()
    assert all(isinstance(each, Inert) or each is Inert for each in read["meta"]["objects"])
    assert {"tests.test_foreign.Config", f"{os.name}.mkdir", f"{os.name}.system"} <= set(replaced)
    assert read["meta"]["cfg"] == "x = 1" and read["meta"]["size"] == (2,)
    assert list(read["state_dict"]) == list(state)
    for name, tensor in read["state_dict"].items():
        assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name].detach()), name
    assert weights_in(read_weight_file(tmp_path / "file.pth")).keys() == state.keys()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_cut_off_files_are_damaged(layout, tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"a": torch.ones(1000), "b": Record()}, path, **layout)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 300, 20, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged") as raised:
            read_weight_file(path)
        assert "\n" not in str(raised.value)


def test_a_view_beyond_its_storage_is_refused(tmp_path, monkeypatch):
    from nets.importers.restricted_pickle import rebuild_tensor

    with pytest.raises(RuntimeError, match="out of bounds"):
        rebuild_tensor(torch.ones(4), 0, (5,), (1,))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_an_openmmlab_training_checkpoint_with_objects(layout, tmp_path):
    checkpoint = shared_parity("segformer_b0").checkpoint
    wrapped = {f"module.{key}": value for key, value in checkpoint["state_dict"].items()}
    meta = {**checkpoint["meta"], "env": Record(), "hook": Config(a=1)}
    content = {"meta": meta, "state_dict": wrapped, "optimizer": {"state": {}}, "message_hub": Record()}
    torch.save(content, tmp_path / "theirs.pth", **layout)
    torch.save(checkpoint, tmp_path / "plain.pth")
    assert same(load_network(tmp_path / "theirs.pth"), load_network(tmp_path / "plain.pth"))


def torchvision_fcn() -> nn.Module:
    return torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3)


def smp_unet() -> nn.Module:
    return smp.Unet("resnet18", encoder_weights=None, classes=3)


@pytest.mark.parametrize(
    ("build", "family"), [(torchvision_fcn, "fcn"), (smp_unet, "unet")], ids=["torchvision", "smp"]
)
@pytest.mark.parametrize("form", ["bare", "wrapped", "safetensors"])
def test_bare_weights_are_recognised(build, family, form, tmp_path):
    torch.manual_seed(0)
    theirs = build().eval()
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(theirs.state_dict(), path)
    elif form == "bare":
        torch.save(theirs.state_dict(), path)
    else:
        torch.save({"epoch": 3, "model": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, path)
    ours = load_network(path)
    assert ours.blueprint["name"] == family and ours.num_classes == 3 and not ours.training
    torch.testing.assert_close(ours.mean, torch.tensor([123.675, 116.28, 103.53]))
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        logits = theirs(ours.normalize(image))
        logits = logits["out"] if isinstance(logits, dict) else logits
        torch.testing.assert_close(ours(image)["logits"], logits, rtol=1e-4, atol=1e-4)


def hugging_face_folder(folder, **preprocessor):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 8}
    names = {"id2label": {0: "ice", 1: "rock"}, "label2id": {"ice": 0, "rock": 1}}
    theirs = SegformerForSemanticSegmentation(SegformerConfig(**sizes, **names)).eval()
    theirs.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return theirs


def test_a_folder_of_hugging_face(tmp_path):
    facts = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.2], "do_reduce_labels": True}
    theirs = hugging_face_folder(tmp_path / "hub", **facts)
    ours = load_network(tmp_path / "hub")
    assert same(ours, load_network(tmp_path / "hub" / "model.safetensors"))
    assert ours.about["classes"]["names"] == ["ice", "rock"]
    assert ours.about["classes"]["table"] == [[1, 0], [2, 1]]
    assert ours.about["bands"]["names"] == ["red", "green", "blue"]
    torch.testing.assert_close(ours.mean, torch.tensor([127.5, 102.0, 76.5]))
    image = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        logits = theirs(ours.normalize(image)).logits
    grid = nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image)["logits"], grid, rtol=1e-4, atol=1e-4)
    # The weights may be divided into several files that an index lists.
    state = read_weight_file(tmp_path / "hub")["state_dict"]
    (tmp_path / "hub" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="the weights are missing"):
        load_network(tmp_path / "hub")
    halves = {"a.safetensors": {}, "b.safetensors": {}}
    for i, (key, value) in enumerate(state.items()):
        halves["ab"[i % 2] + ".safetensors"][key] = value
    for name, half in halves.items():
        save_file(half, tmp_path / "hub" / name)
    weight_map = {key: name for name, half in halves.items() for key in half}
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(ours, load_network(tmp_path / "hub"))


def test_what_is_not_a_segmentation_network(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"classification network.*--PRETRAIN_BACKBONE"):
        load_network(tmp_path / "resnet.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"of another kind \(no blueprint in it; 1 tensors: a"):
        load_network(tmp_path / "other.pth")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no weights"):
        load_network(tmp_path / "empty.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_network(tmp_path / "folder")
    (tmp_path / "folder" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        load_network(tmp_path / "folder")


def test_convert_and_load_gives_the_same_bits(tmp_path):
    hugging_face_folder(tmp_path / "hub")
    report = convert(tmp_path / "hub", tmp_path / "ours.pth")
    assert "placed      every tensor, none is left over" in report
    assert any(line.startswith("source      Hugging Face, ") for line in report)
    assert "assumed     normalisation: ImageNet's, for red, green, blue in 0..255" in report
    ours, again = load_network(tmp_path / "hub"), load_network(tmp_path / "ours.pth")
    assert same(ours, again) and again.about["classes"] == ours.about["classes"]
    assert again.about["blueprint"] == ours.blueprint and "assumed" not in again.about
    with pytest.raises(UserError, match=r"is a checkpoint of train\.py already"):
        convert(tmp_path / "ours.pth", tmp_path / "twice.pth")


def test_what_cannot_be_placed_is_named(tmp_path):
    state = smp_unet().state_dict()
    del state["segmentation_head.0.bias"]
    torch.save({**state, "extra.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"without a place in the network: extra\.weight"):
        convert(tmp_path / "x.pth", tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()
    report = convert(tmp_path / "x.pth", tmp_path / "ours.pth", "--PARTIAL")
    assert "not placed  2" in report and "  extra.weight: no place in this network" in report
    assert "  classifier.bias: not in the file, stays at its start" in report
    assert load_network(tmp_path / "ours.pth").blueprint["name"] == "unet"


def test_other_classes_and_bands(tmp_path):
    torch.save(smp_unet().state_dict(), tmp_path / "x.pth")
    report = convert(tmp_path / "x.pth", tmp_path / "ours.pth", "--NUM_CLASS", 5, "--BANDS", 6)
    assert "  backbone.body.conv1.weight: for 3 bands, made one for 6 (rgb_mean)" in report
    assert any(line.startswith("  classifier.weight: [3, 16, 3, 3] in the file") for line in report)
    theirs, ours = load_network(tmp_path / "x.pth"), load_network(tmp_path / "ours.pth")
    assert ours.bands == 6 and ours.num_classes == 5
    stem, made = theirs.backbone.body.conv1.weight, ours.backbone.body.conv1.weight
    assert torch.equal(made[:, :3], stem / 2)
    torch.testing.assert_close(made[:, 3:], stem.mean(1, keepdim=True).expand(-1, 3, -1, -1) / 2)
    assert torch.equal(ours.decoder.blocks[0][0].conv.weight, theirs.decoder.blocks[0][0].conv.weight)


def test_a_random_stem_is_left_alone():
    options = {"num_classes": 2, "backbone": "test_resnet", "decoder_channels": (4,)}
    three, five = (create_model("unet", bands=bands, **options) for bands in (3, 5))
    lines = load_matching(five, {"state_dict": three.state_dict()}, "x.pth", stem_init="random")
    assert any(line.startswith("backbone.body.") and "[" in line for line in lines)
