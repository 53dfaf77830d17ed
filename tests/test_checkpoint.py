"""Checkpoint files: format, atomic writing, damaged and foreign files."""

import gzip

import pytest
import torch

import Structure
from nets import create_model
from nets.errors import UserError
from tests.helpers import ROOT
from utils import checkpoint
from utils.checkpoint import FORMAT, load_matching, network_state, read_checkpoint, write_checkpoint

GOLDEN = ROOT / "tests" / "golden"


def content(network) -> dict:
    return {
        "blueprint": network.blueprint,
        "state_dict": network_state(network),
        "classes": {"names": ["a", "b"]},
    }


@pytest.fixture
def network():
    return create_model("unet", bands=2, num_classes=2, backbone="test_resnet", decoder_channels=(4,))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_every_released_format_still_opens(number, tmp_path):
    path = tmp_path / "golden.pth"
    path.write_bytes(gzip.decompress((GOLDEN / f"format{number}.pth.gz").read_bytes()))
    network = Structure.load_network(path)
    assert network.blueprint["name"] == "unet" and network.about["classes"]["names"] == ["ice", "rock"]
    assert network.about["crop_size"] == [64, 96] and network.about["epoch"] == 7
    with torch.inference_mode():
        logits = network(torch.full((1, 2, 64, 64), 0.5))["logits"]
    torch.testing.assert_close(logits.mean(), torch.tensor(0.01), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (
            "fcn",
            {
                "backbone": "mobilenetv2_035",
                "channels": 8,
                "aux_heads": ({"channels": 8, "index": (0, 1)}, {"channels": 4, "index": (-2,)}),
                "backbone_options": {"strides": (1, 2, 2, 2, 1, 1, 1), "out_stages": (1, 2, 6)},
            },
        ),
        (
            "unet",
            {
                "backbone": "s5_d16",
                "decoder_options": {"channels": 8, "index": (1, 0)},
                "backbone_options": {"base_channels": 4, "downsamples": (True, True, True, False)},
            },
        ),
        (
            "ocrnet",
            {"backbone": "test_resnet", "channels": 8, "coarse_head": {"channels": 4, "index": (-1,)}},
        ),
    ],
    ids=["fcn", "unet", "ocrnet"],
)
def test_options_made_of_dicts_survive_the_file(family, options, tmp_path):
    network = create_model(family, bands=2, num_classes=2, **options).eval()
    write_checkpoint(tmp_path / "x.pth", content(network))
    plain = torch.load(tmp_path / "x.pth", weights_only=True)["blueprint"]
    assert plain == network.blueprint and {**plain["options"], **options} == plain["options"]
    rebuilt = Structure.load_network(tmp_path / "x.pth")
    assert rebuilt.blueprint == network.blueprint
    images = torch.randn(1, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(rebuilt(images)["logits"], network(images)["logits"])


def test_a_failed_write_leaves_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    write_checkpoint(path, content(network))
    before = path.read_bytes()

    def full(_object, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(path, content(network))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_damaged_foreign_and_newer_files(network, tmp_path):
    path = tmp_path / "x.pth"
    write_checkpoint(path, content(network))
    whole = path.read_bytes()
    cases = {
        "damaged": whole[: len(whole) // 2],
        "text": b"no checkpoint",
        "empty": b"",
    }
    for name, data in cases.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
        with pytest.raises(UserError, match="damaged") as raised:
            read_checkpoint(tmp_path / f"{name}.pth")
        assert name in str(raised.value) and "\n" not in str(raised.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list, not a checkpoint"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="of another kind"):
        Structure.load_network(tmp_path / "other.pth")
    torch.save({**content(network), "format": FORMAT + 1}, tmp_path / "newer.pth")
    with pytest.raises(UserError, match=f"has checkpoint format {FORMAT + 1}"):
        Structure.load_network(tmp_path / "newer.pth")
    with pytest.raises(UserError, match="does not exist"):
        Structure.load_network(tmp_path / "absent.pth")


def test_objects_in_a_file_are_not_run(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (print, ("the trap was sprung",))

    torch.save({"format": 1, "blueprint": Trap(), "state_dict": {}, "classes": {}}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="holds no weights"):
        Structure.load_network(tmp_path / "trap.pth")
    assert "trap" not in capsys.readouterr().out


def test_what_is_left_out_is_listed(network):
    state = {f"module.{name}": tensor for name, tensor in network_state(network).items()}
    state["module.classifier.weight"] = torch.zeros(5, 4, 3, 3)
    del state["module.classifier.bias"]
    state["module.extra"] = torch.zeros(1)
    lines = load_matching(network, {"state_dict": state}, "theirs.pth")
    assert sorted(lines) == [
        "classifier.bias: not in the file, stays at its start",
        "classifier.weight: [5, 4, 3, 3] in the file, [2, 4, 3, 3] here",
        "extra: this network has no such tensor",
    ]
    with pytest.raises(UserError, match=r"nothing in foreign\.pth fits this network"):
        load_matching(network, {"mean": torch.zeros(2), "w": torch.zeros(1)}, "foreign.pth")
