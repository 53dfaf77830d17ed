"""Training from the weights of another run, of another program or of a backbone."""

import json

import timm
import torch

from tests.training_helpers import run
from utils.checkpoint import read_checkpoint


def test_fine_tuning_with_another_class_count(data, tmp_path, capsys):
    assert run(data) == 0
    source = tmp_path / "pth_files" / "unet_test_resnet" / "best.pth"
    assert run(data, "--PRETRAIN_MODEL", str(source), "--NUM_CLASS", "5", "--INIT_LR", "1e-12") == 0
    text = capsys.readouterr().out
    assert "not loaded: classifier.weight: [3, 8, 3, 3] in the file, [5, 8, 3, 3] here" in text
    assert "as in --PRETRAIN_MODEL (checkpoint)" in text
    old, new = (
        read_checkpoint(source),
        read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet-2" / "last.pth"),
    )
    key = "decoder.blocks.0.0.conv.weight"
    torch.testing.assert_close(old["state_dict"][key], new["state_dict"][key])
    assert new["classes"]["names"][3:] == ["class_3", "class_4"]


def test_wrappers_prefixes_are_stripped_and_foreign_files_refused(data, tmp_path, capsys):
    assert run(data) == 0
    state = read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet" / "best.pth")["state_dict"]
    torch.save({"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pth")
    capsys.readouterr()
    assert run(data, "--PRETRAIN_MODEL", str(tmp_path / "wrapped.pth")) == 0
    assert "not loaded" not in capsys.readouterr().out
    torch.save({"foreign": torch.zeros(3)}, tmp_path / "foreign.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 not a zip")
    for name, message in (
        ("foreign", "nothing in"),
        ("broken", "is damaged or not a PyTorch checkpoint"),
        ("absent", "does not exist"),
    ):
        assert run(data, "--PRETRAIN_MODEL", str(tmp_path / f"{name}.pth"), "--RUN_NAME", name) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "pth_files" / name).exists()


def test_a_pretrained_backbone_keeps_its_colours_on_the_named_bands(data, tmp_path, capsys):
    names = ["b1", "blue", "green", "red", *(f"b{i}" for i in range(5, 11))]
    (data / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"], "bands": names}))
    donor = timm.create_model("test_resnet").state_dict()
    torch.save(donor, tmp_path / "donor.pth")
    assert run(data, "--PRETRAIN_BACKBONE", str(tmp_path / "donor.pth"), "--INIT_LR", "1e-12") == 0
    assert "red, green, blue are red, green, blue" in capsys.readouterr().out
    state = read_checkpoint(tmp_path / "pth_files" / "unet_test_resnet" / "best.pth")["state_dict"]
    stem = next(v for k, v in state.items() if k.startswith("backbone") and v.ndim == 4)
    original = next(v for v in donor.values() if v.ndim == 4)
    torch.testing.assert_close(stem[:, [3, 2, 1]], original * 0.3)
    torch.testing.assert_close(stem[:, 0], original.mean(1) * 0.3)
