"""export.py: files that give what the network gives, say what they are, and replace a checkpoint."""

import json
import shutil

import numpy as np
import onnx
import pytest
import rasterio
import torch
from PIL import Image
from torch import nn

import export
import predict_small
from nets import create_model
from nets.errors import UserError
from Structure import load_network
from tests.helpers import UNWRITABLE, randomize
from utils.checkpoint import network_state, write_checkpoint
from utils.data.labels import Classes, default_colors
from utils.deployment import formats
from utils.deployment.check import MOST, Difference, check_sizes, compare, example
from utils.deployment.real_image import cut_out, known_image
from utils.program import run_program

NAMES = ("ice", "rock", "lake")
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".torchscript"}
ALL = pytest.mark.parametrize("name", list(ENDINGS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with best.pth and its three exported files."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    network = randomize(create_model("pspnet", bands=4, num_classes=3, backbone="test_resnet", channels=8))
    network.mean.copy_(torch.tensor([90.0, 100.0, 110.0, 400.0]))
    network.std.copy_(torch.tensor([30.0, 40.0, 50.0, 90.0]))
    classes = Classes(NAMES, tuple(default_colors(3)), {0: 0, 1: 1, 2: 2}, (255,))
    about = {
        "blueprint": network.blueprint,
        "state_dict": network_state(network),
        "task": "multiclass",
        "classes": classes.to_dict(),
        "bands": {"names": ["red", "green", "blue", "nir"]},
        "crop_size": [64, 96],
        "metrics": {"mIoU": 0.5, "IoU": [0.5, float("nan"), 0.5]},
        "epoch": 3,
        "options": {"SEED": 0},
    }
    write_checkpoint(folder / "best.pth", about)
    for name in ENDINGS:
        assert run_program(export.main, ["--WEIGHTS", str(folder / "best.pth"), "--FORMAT", name]) == 0
    return folder


@ALL
def test_every_size_and_batch(folder, name):
    network = load_network(folder / "best.pth")
    run = formats.FORMATS[name].run(folder / f"best{ENDINGS[name]}")
    for batch, size in ((3, (33, 70)), (1, (96, 64)), (2, (32, 32))):
        difference = compare(network, run, example(network, batch, size))
        assert difference.small and difference.probability < 1e-4, difference


@pytest.mark.parametrize("name", ["onnx", "torch_export"])
def test_maps_of_one_pixel(tmp_path, name):
    torch.manual_seed(0)
    network = randomize(create_model("ddrnet", bands=2, num_classes=3, channels=8)).eval()
    network.about = {"crop_size": [64, 64]}
    path = tmp_path / f"a{ENDINGS[name]}"
    formats.FORMATS[name].write(network, path)
    run = formats.FORMATS[name].run(path)
    # Behind a stride of 64 and pooling 128 pixels are one; the traced image has several.
    for size in ((32, 32), (65, 128), (129, 257)):
        difference = compare(network, run, example(network, 1, size))
        assert difference.small and difference.probability < 1e-4, difference


def test_the_check_has_smaller_and_larger_images(folder):
    network = load_network(folder / "best.pth")
    assert check_sizes(network) == [(1, (64, 96)), (2, (41, 73)), (1, (97, 145)), (1, (32, 32))]


@ALL
def test_files_say_what_they_are(folder, name):
    path = folder / f"best{ENDINGS[name]}"
    extra = {"pureseg.json": ""}
    if name == "onnx":
        model = onnx.load(path)
        extra["pureseg.json"] = {each.key: each.value for each in model.metadata_props}["pureseg"]
        sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
        assert sides == ["batch", 4, "height", "width"]
    elif name == "torch_export":
        torch.export.load(path, extra_files=extra)
    else:
        torch.jit.load(path, _extra_files=extra)
    said = json.loads(extra["pureseg.json"])
    assert (said["num_bands"], said["num_classes"], said["min_size"], said["size_divisor"]) == (4, 3, 32, 1)
    assert said["task"] == "multiclass" and said["about"]["classes"]["names"] == list(NAMES)
    assert said["about"]["classes"]["colors"] == [list(color) for color in default_colors(3)]
    assert said["about"]["bands"]["names"] == ["red", "green", "blue", "nir"]
    assert said["about"]["crop_size"] == [64, 96] and said["about"]["metrics"]["IoU"][1] is None


def test_predict_with_the_onnx_file_gives_the_checkpoints_map(folder, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (61, 83, 4)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    for name in ("best.pth", "best.onnx"):
        words = ["--WEIGHTS", str(folder / name), "--INPUT", str(tmp_path / "a.npy"), "--USE_CPU"]
        assert (
            run_program(predict_small.main, [*words, "--OUTPUT", str(tmp_path / name), "--TTA", "flip"]) == 0
        )
    one, two = (Image.open(tmp_path / name / "a.png") for name in ("best.pth", "best.onnx"))
    assert (np.array(one) != np.array(two)).mean() < 1e-3
    assert one.getpalette() == two.getpalette() and len(np.unique(one)) > 1
    network, exported = load_network(folder / "best.pth"), load_network(folder / "best.onnx")
    images = example(network, 2, (45, 67))
    with torch.inference_mode():  # as evaluate.py takes the classes
        both = [each(images)["logits"].argmax(1) for each in (network, exported)]
    assert (both[0] != both[1]).float().mean() < 1e-3
    network = exported
    assert (network.bands, network.num_classes, network.about["crop_size"]) == (4, 3, [64, 96])


class Wrong(nn.Module):
    def __init__(self, run, change):
        super().__init__()
        self.run, self.change = run, change

    def forward(self, images):
        return self.change(self.run(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found * 1.2, "the file differs from the network"),
        (lambda found: found * torch.nan, "the file differs from the network"),
        (lambda found: found[..., :-1], "comes out where"),
        (lambda found: found.view(7, 7, 7), "the file does not run: shape"),
    ],
)
def test_a_file_that_differs_is_not_left(folder, tmp_path, monkeypatch, capsys, change, message):
    own = formats.FORMATS["torchscript"]
    wrong = own._replace(run=lambda path: Wrong(own.run(path), change))
    monkeypatch.setitem(formats.FORMATS, "torchscript", wrong)
    words = ["--WEIGHTS", str(folder / "best.pth"), "--FORMAT", "torchscript"]
    output = tmp_path / "x.torchscript"
    assert run_program(export.main, [*words, "--OUTPUT", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_small():
    assert Difference((1, 2, 3), 0.0, MOST, MOST).small
    assert not Difference((1, 2, 3), 0.0, 1.1 * MOST, 0.0).small
    assert not Difference((1, 2, 3), 0.0, 0.0, 1.1 * MOST).small
    assert not Difference((1, 2, 3), 0.0, float("nan"), 0.0).small


def test_an_image_file(folder, tmp_path):
    network = load_network(folder / "best.pth")
    image = np.random.default_rng(0).integers(0, 255, (40, 200, 4)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    images = cut_out(network, tmp_path / "a.npy", 2, (64, 96))
    assert images.shape == (2, 4, 64, 96)
    assert images[:, :, :8, :12].isnan().all() and images.isnan().sum() == 2 * 4 * 8 * 12
    corner = image[:, 104:].transpose(2, 0, 1)
    assert np.array_equal(images[1, :, 8:40].numpy(), corner[:, 8:])
    assert np.array_equal(images[1, :, 40:].numpy(), corner[:, :15:-1])  # mirrored
    with rasterio.open(
        tmp_path / "c.tif", "w", driver="GTiff", count=4, height=40, width=200, dtype="uint8"
    ) as target:
        target.write(image[..., ::-1].transpose(2, 0, 1))
        target.descriptions = ("nir", "blue", "green", "red")
    assert torch.equal(cut_out(network, tmp_path / "c.tif", 2, (64, 96)).nan_to_num(), images.nan_to_num())
    np.save(tmp_path / "b.npy", image[..., :3])
    with pytest.raises(UserError, match=r"has 3 bands; the network was trained on 4"):
        cut_out(network, tmp_path / "b.npy", 2, (64, 96))


def test_an_image_of_the_checkpoints_data_set(folder, tmp_path, capsys):
    about = torch.load(folder / "best.pth", weights_only=True)
    assert known_image(load_network(folder / "best.pth")) is None  # it names none
    data = tmp_path / "data"
    write_tiles(data, bands=4)
    about["options"] = {"DATASET_PATH": str(data), "DATASET_FORMAT": "auto", "LABEL_DIR": None}
    write_checkpoint(tmp_path / "best.pth", about)
    words = ["--WEIGHTS", str(tmp_path / "best.pth"), "--FORMAT", "torchscript"]
    assert run_program(export.main, words) == 0
    assert f"check:   on {data / 'images' / 'b.npy'}" in capsys.readouterr().out
    write_tiles(data, bands=3)
    assert known_image(load_network(tmp_path / "best.pth")) is None
    shutil.rmtree(data)
    assert run_program(export.main, words) == 0
    assert "check:   on images made from the band statistics" in capsys.readouterr().out


def write_tiles(data, bands):
    rng = np.random.default_rng(0)
    for part in ("images", "labels", "annotations"):
        (data / part).mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "a"), ("val", "b")):
        np.save(data / "images" / f"{name}.npy", rng.integers(0, 255, (40, 60, bands)).astype(np.uint8))
        np.save(data / "labels" / f"{name}.npy", rng.integers(0, 3, (40, 60)).astype(np.uint8))
        (data / "annotations" / f"{split}.txt").write_text(f"{name}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--OUTPUT", "x.pt2"], "ONNX files end in .onnx"),
        (["--OUTPUT", "nowhere/x.onnx"], "cannot be written"),
        (["--OUTPUT", f"{UNWRITABLE}/x.onnx"], "cannot be written"),
        (["--WEIGHTS", "best.onnx"], "is an exported file already"),
        (["--FORMAT", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_mistakes_are_one_line(folder, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    assert run_program(export.main, ["--WEIGHTS", "best.pth", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_onnx_files_of_others(tmp_path, folder):
    model = onnx.load(folder / "best.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"nothing")
    for name, message in (
        ("a.onnx", "does not say what its classes and bands are"),
        ("b.onnx", "cannot be opened"),
        ("c.onnx", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            load_network(tmp_path / name)
