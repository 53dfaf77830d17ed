"""Both predict programs from flags to files, with a network of one 1x1 convolution."""

import os
import sys
import types

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from torch import nn

import predict_large
import predict_small
from nets.errors import UserError
from tests.helpers import UNWRITABLE, shared_data
from utils.data.labels import Classes
from utils.data.raster import read_image
from utils.inference.inputs import result_names
from utils.inference.quicklook import QuickLook
from utils.program import run_program

UTM = CRS.from_epsg(32633)
GRID = Affine(10.0, 0.0, 465180.0, 0.0, -10.0, 5080250.0)
CLASSES = Classes(
    ("ice", "rock", "lake"), ((240, 240, 255), (90, 60, 40), (0, 90, 220)), {0: 0, 1: 1, 2: 2}, ()
)
BOTH = pytest.mark.parametrize("program", [predict_small, predict_large], ids=["small", "large"])


class Pointwise(nn.Module):
    """A network of one 1x1 convolution with the promises of a real one."""

    min_size, size_divisor = 32, 1

    def __init__(self, bands: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.bands, self.num_classes = bands, 3
        self.layer = nn.Conv2d(bands, 3, 1)
        self.about = {"classes": CLASSES.to_dict(), "bands": {"names": []}, "crop_size": [48, 48]}

    def forward(self, images):
        spread = images.new_tensor(100.0 if images.nan_to_num().abs().max() > 2 else 1.0)
        return {"logits": self.layer(torch.nan_to_num(images) / spread)}

    def probabilities(self, outputs):
        return outputs["logits"].softmax(1)


@pytest.fixture
def network(monkeypatch):
    """Make `load_network` return a point-wise network of the given number of bands."""

    def use(bands: int) -> Pointwise:
        fake = types.ModuleType("Structure")
        net = Pointwise(bands).eval()
        fake.load_network = lambda path: net
        monkeypatch.setitem(sys.modules, "Structure", fake)
        return net

    return use


def run(program, source, output, *more: str) -> int:
    argv = ["--WEIGHTS", "x.pth", "--INPUT", str(source), "--OUTPUT", str(output), "--USE_CPU", *more]
    return run_program(program.main, argv)


def write_tif(path, image, **more) -> None:
    bands, height, width = image.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": image.dtype.name}
    with rasterio.open(path, "w", **{**profile, **more}) as target:
        target.write(image)


def scene(bands: int = 4, height: int = 130, width: int = 101) -> np.ndarray:
    values = np.random.default_rng(0).integers(1, 200, (bands, height, width)).astype(np.uint16)
    values[:, :40, :60] = 0
    return values


def expected(net, path) -> np.ndarray:
    image, valid = read_image(path)
    with torch.inference_mode():
        classes = net(torch.from_numpy(image.astype(np.float32))[None])["logits"][0].argmax(0).numpy()
    return np.where(valid, classes, 255)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@BOTH
def test_georeferenced_scene(program, network, tmp_path, capsys):
    net = network(4)
    write_tif(tmp_path / "a.tif", scene(), crs=UTM, transform=GRID, nodata=0)
    output = tmp_path / "output"
    assert run(program, tmp_path / "a.tif", output, "--SCORES") == 0
    with rasterio.open(output / "a.tif") as source:
        assert np.array_equal(source.read(1), expected(net, tmp_path / "a.tif"))
        assert (source.crs, source.transform, source.nodata) == (UTM, GRID, 255)
        assert source.dataset_mask()[:40, :60].max() == 0
    with rasterio.open(output / "a_scores.tif") as source:
        scores = source.read()
        assert np.isnan(scores[:, :40, :60]).all()
        assert np.abs(scores[:, 40:].sum(0) - 1).max() < 1e-5
    assert Image.open(output / "a_overlay.png").size == (101, 130)
    assert names(output) == ["a.tif", "a.tif.aux.xml", "a_overlay.png", "a_scores.tif"]
    text = capsys.readouterr().out
    assert "classes: 3 (ice, rock, lake)" in text
    assert "km²" in text
    assert f"results are in {output}" in text


@BOTH
def test_images_lie_as_the_network_is_fastest(program, network, tmp_path):
    net = network(4)
    net.layer = nn.Conv2d(4, 3, 3, padding=1)
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    write_tif(tmp_path / "a.tif", scene())
    assert run(program, tmp_path / "a.tif", tmp_path / "output") == 0
    assert seen and all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)


def test_windows_and_whole_agree(network, tmp_path):
    network(4)
    write_tif(tmp_path / "a.tif", scene(), crs=UTM, transform=GRID, nodata=0)
    assert run(predict_small, tmp_path / "a.tif", tmp_path / "small", "--SCORES") == 0
    assert run(predict_large, tmp_path / "a.tif", tmp_path / "large", "--SCORES", "--OVERLAP", "0.7") == 0
    with (
        rasterio.open(tmp_path / "small/a_scores.tif") as one,
        rasterio.open(tmp_path / "large/a_scores.tif") as two,
    ):
        a, b = one.read(), two.read()
    assert np.array_equal(np.isnan(a), np.isnan(b))
    assert np.nanmax(np.abs(a - b)) < 1e-5
    pictures = [np.array(Image.open(tmp_path / part / "a_overlay.png")) for part in ("small", "large")]
    assert np.array_equal(*pictures)


@BOTH
def test_folder_of_many_kinds(program, network, tmp_path, capsys):
    net = network(3)
    folder, output = tmp_path / "in", tmp_path / "out"
    (folder / "deeper").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    Image.fromarray(picture).save(folder / "a.jpg")
    Image.fromarray(picture).save(folder / "deeper/c.png")
    np.save(folder / "b.npy", picture)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").write_text("x")
    assert run(program, folder, output) == 0
    kind = "png" if program is predict_small else "tif"
    maps = [name for name in names(output) if name.endswith(kind) and "overlay" not in name]
    assert maps == [f"a_jpg.{kind}", f"a_png.{kind}", f"b.{kind}"]
    with Image.open(output / f"a_png.{kind}") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.array(picture), expected(net, folder / "a.png"))
    text = capsys.readouterr().out
    assert "skipped, not an image: notes.txt" in text
    assert "km²" not in text


@BOTH
def test_damaged_files_are_named_and_the_others_finished(program, network, tmp_path, capsys):
    network(4)
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_tif(folder / f"{name}.tif", scene(), compress="deflate")
    (folder / "b.tif").write_bytes((folder / "b.tif").read_bytes()[:-20000])  # the header is still whole
    (folder / "c.tif").write_bytes(b"nothing")
    assert run(program, folder, output, "--SCORES") == 2
    kind = "png" if program is predict_small else "tif"
    assert {name[0] for name in names(output)} == {"a"}
    assert f"a.{kind}" in names(output)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2 of 3 images have no result" in last
    assert "b.tif" in last
    assert "c.tif" in last


@BOTH
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write_tif(f / "a.tif", scene(5)), "a.tif has 5 bands; the network was trained on 4"),
        (lambda f: None, "holds no image; files ending in .tif, .tiff, .png, .jpg, .jpeg, .npy are read"),
        (lambda f: (f / "a.tif").write_bytes(b"x"), "a.tif cannot be read"),
        (lambda f: f.rmdir(), "does not exist; give an image or a folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(program, network, tmp_path, capsys, make, message):
    network(4)
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    assert run(program, tmp_path / "in", tmp_path / "out") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@BOTH
def test_output_never_overwrites_the_input(program, network, tmp_path, capsys):
    network(4)
    write_tif(tmp_path / "a.tif", scene())
    before = (tmp_path / "a.tif").read_bytes()
    assert run(program, tmp_path / "a.tif", tmp_path) == 2
    assert run(program, tmp_path, tmp_path / "x" / "..") == 2
    assert capsys.readouterr().err.count("is the folder of the input") == 2
    (tmp_path / "file").write_text("x")
    assert run(program, tmp_path / "a.tif", tmp_path / "file") == 2
    assert "cannot be made" in capsys.readouterr().err
    if UNWRITABLE.is_dir():
        assert run(program, tmp_path / "a.tif", UNWRITABLE) == 2
        assert "written into" in capsys.readouterr().err
    assert (tmp_path / "a.tif").read_bytes() == before


def test_names_never_collide(tmp_path):
    paths = [tmp_path / name for name in ("A.tif", "a.png", "b.tif", "b_overlay.png", "c.tif")]
    assert result_names(paths) == ["A_tif", "a_png", "b", "b_overlay-2", "c"]


def test_scene_smaller_than_a_window_and_one_pixel(network, tmp_path):
    net = network(4)
    for height, width in ((1, 1), (20, 200)):
        write_tif(tmp_path / "a.tif", scene(height=height, width=width), crs=UTM, transform=GRID)
        assert run(predict_large, tmp_path / "a.tif", tmp_path / "out", "--WINDOW", "512") == 0
        with rasterio.open(tmp_path / "out/a.tif") as source:
            assert np.array_equal(source.read(1), expected(net, tmp_path / "a.tif"))


@pytest.mark.parametrize(("longest", "step"), [(300, 1), (100, 2), (50, 3)])
def test_quick_look_is_every_nth_pixel(tmp_path, longest, step):
    from utils.data.raster import Window, raster_info

    write_tif(tmp_path / "a.tif", scene(3))
    image, valid = read_image(tmp_path / "a.tif")
    look = QuickLook(raster_info(tmp_path / "a.tif"), CLASSES, longest)
    classes = (np.arange(130 * 101).reshape(130, 101) % 3).astype(np.uint8)
    for top, count in ((0, 7), (7, 1), (8, 1), (9, 61), (70, 60)):
        rows = slice(top, top + count)
        look.add_image(Window(top, 0, count, 101), image[:, rows], valid[rows])
        look.add_classes(top, classes[rows])
    assert look.step == step
    assert np.array_equal(look.image, image[:, ::step, ::step])
    assert np.array_equal(look.class_map, classes[::step, ::step])
    assert look.draw().shape == (*look.valid.shape, 3)


@pytest.mark.parametrize(
    ("place", "name", "bands", "kind"),
    [
        ("camvid-small", "0001TP_006690.jpg", 3, "png"),
        ("water8", "tile_000.tif", 8, "png"),
        ("s2-eopatch", "scene_2.tif", 13, "tif"),
    ],
)
def test_real_images(network, tmp_path, place, name, bands, kind):
    net = network(bands)
    source = shared_data(place, "images", name)
    assert run(predict_small, source, tmp_path) == 0
    assert run(predict_large, source, tmp_path / "large") == 0
    truth = expected(net, source)
    assert np.array_equal(read_classes(tmp_path / f"{source.stem}.{kind}"), truth)
    assert np.array_equal(read_classes(tmp_path / "large" / f"{source.stem}.tif"), truth)


def read_classes(path) -> np.ndarray:
    if path.suffix == ".png":
        return np.array(Image.open(path))
    with rasterio.open(path) as source:
        return source.read(1)


@BOTH
def test_missing_weights_say_so(program):
    with pytest.raises(UserError, match="--WEIGHTS is missing"):
        program.main([])


def test_huge_pages_are_asked_for_unless_the_user_chose(monkeypatch):
    for given, wanted in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
        if given:
            monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", given)
        assert run_program(lambda argv: None, []) == 0
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == wanted
