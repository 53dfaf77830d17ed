"""What predict_large.py takes: files, folders, lists and addresses, and bands by their names."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

import predict_small
from nets.errors import UserError
from tests.scene_helpers import WINDOWS, Bands, blobs, large, read, use, write_scene
from utils.data.band_choice import band_order
from utils.inference.sources import find_sources, stem_and_ending
from utils.program import run_program


def test_sources(tmp_path):
    for name in ("a.tif", "b.tif", "c.txt", "sub/d.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    listed = ["# remark", "b.tif", "", "/vsicurl/https://x.org/e.tif?key=1", "sub/d.tif"]
    (tmp_path / "list.txt").write_text("\n".join(listed), encoding="utf-8")

    def found(given, notices=None):
        return [str(path).removeprefix(f"{tmp_path}/") for path in find_sources(given, notices or [])]

    assert found(tmp_path) == ["a.tif", "b.tif"]
    assert found(tmp_path / "b.tif") == ["b.tif"]
    assert found(f"{tmp_path}/**/*.tif") == ["a.tif", "b.tif", "sub/d.tif"]
    assert found(f"{tmp_path}/[b]*") == ["b.tif"]
    assert found(tmp_path / "list.txt") == ["b.tif", "/vsicurl/https://x.org/e.tif?key=1", "sub/d.tif"]
    assert found("https://x.org//e.tif") == ["https://x.org//e.tif"]
    for given, message in [
        (f"{tmp_path}/z*.tif", "matches no image"),
        (f"{tmp_path}/z.tif", "does not exist; give an image or a folder"),
        (tmp_path / "c.txt", None),
    ]:
        if message:
            with pytest.raises(UserError, match=message):
                find_sources(given, [])
    (tmp_path / "list.txt").write_text("a.tif\na.tif")
    with pytest.raises(UserError, match=r"names .*a\.tif twice"):
        find_sources(tmp_path / "list.txt", [])
    (tmp_path / "list.txt").write_text("#\n")
    with pytest.raises(UserError, match="names no image"):
        find_sources(tmp_path / "list.txt", [])
    assert stem_and_ending("/vsis3/bucket/scene.tif?key=a/b") == ("scene", ".tif")
    assert stem_and_ending("zip://a.zip!b.tif") == ("b", ".tif")


def test_band_order():
    assert band_order(("blue", "Green", "red", "nir"), ("red", "green", "blue")) == (2, 1, 0)
    assert band_order(("red", "green"), ("red", "green")) == (0, 1)
    assert band_order(("red", None), ("red", "green")) is None
    assert band_order(("red", "red"), ("red",)) is None
    assert band_order((None, None), ()) is None


@pytest.mark.parametrize("program", ["small", "large"])
def test_bands_are_taken_by_their_names_from_a_vrt(program, tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands())
    image = blobs(90, 70)
    path = write_scene(tmp_path / "rgb.tif", image)
    mixed = write_scene(tmp_path / "mixed.tif", np.stack([image[2], image[0], 255 - image[0], image[1]]))
    with rasterio.open(mixed, "r+") as file:
        file.descriptions = ("Blue", "red", "other", "green")
    rasterio.shutil.copy(mixed, tmp_path / "mixed.vrt", driver="VRT")
    for source in (path, tmp_path / "mixed.vrt"):
        if program == "large":
            assert large(source, tmp_path / "out", *WINDOWS) == 0
        else:
            words = ["--WEIGHTS", "x", "--INPUT", str(source), "--OUTPUT", str(tmp_path / "out"), "--USE_CPU"]
            assert run_program(predict_small.main, words) == 0
    assert np.array_equal(read(tmp_path / "out/rgb.tif"), read(tmp_path / "out/mixed.tif"))
    assert np.array_equal(read(tmp_path / "out/rgb.tif")[0], image.argmax(0))
    assert "taken in this order: red (band 2), green (band 4), Blue (band 1)" in capsys.readouterr().out
    pictures = [np.array(Image.open(tmp_path / f"out/{name}_overlay.png")) for name in ("rgb", "mixed")]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1
