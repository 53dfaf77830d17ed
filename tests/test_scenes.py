"""predict_large.py on scenes: sources, kinds of results, interruption, memory, seams."""

import json
import shutil
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from PIL import Image

from nets.errors import UserError
from tests.helpers import shared_data
from tests.scene_helpers import CLASSES, Bands, blobs, large, names, use, write_scene
from utils.data.band_choice import band_order
from utils.data.raster import raster_info
from utils.inference import resume
from utils.inference.memory import BackingOff, is_out_of_memory
from utils.inference.results import ResultOptions, SceneResults
from utils.inference.scenes import WindowOptions, memory_estimate
from utils.inference.sources import find_sources, stem_and_ending

WINDOWS = ("--WINDOW", "64", "--NUM_WORKERS", "2")


def read(path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as source:
            return source.read()


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
    import predict_small
    from utils.program import run_program

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


def test_scores_in_every_type(tmp_path, monkeypatch):
    use(monkeypatch, Bands())
    image = blobs(130, 300)
    image[:, :70, :100] = 0
    write_scene(tmp_path / "a.tif", image, nodata=0)
    assert large(tmp_path / "a.tif", tmp_path / "exact", *WINDOWS, "--SCORES") == 0
    exact = read(tmp_path / "exact/a_scores.tif")
    valid = ~np.isnan(exact[0])
    assert not valid[:70, :100].any() and valid.sum() == 130 * 300 - 7000
    entropy = -(exact * np.log(exact)).sum(0) / np.log(3)
    for dtype, step in (("uint8", 0.5 / 254), ("float16", 5e-4), ("float32", 1e-6)):
        words = f"probabilities:{dtype},confidence:{dtype},entropy:{dtype}"
        assert large(tmp_path / "a.tif", tmp_path / dtype, *WINDOWS, "--SCORES", words) == 0
        for kind, wanted in (
            ("scores", exact),
            ("confidence", exact.max(0)[None]),
            ("entropy", entropy[None]),
        ):
            with rasterio.open(tmp_path / dtype / f"a_{kind}.tif") as source:
                values, mask = source.read(), source.dataset_mask() > 0
                values = values.astype(float) * source.scales[0]
                assert source.descriptions == (CLASSES.names if kind == "scores" else (kind,))
                half = source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
            assert (half == "16") == (dtype == "float16")
            assert np.array_equal(mask, valid)
            assert np.abs(values - wanted)[:, valid].max() <= step + 1e-6, (kind, dtype)


def test_cloud_optimised_geotiff(tmp_path, monkeypatch):
    use(monkeypatch, Bands())
    write_scene(tmp_path / "a.tif", blobs(700, 600))
    words = ("--SCORES", "probabilities:uint8,entropy:float16")
    assert large(tmp_path / "a.tif", tmp_path / "cog", *WINDOWS, "--FORMAT", "cog", *words) == 0
    assert large(tmp_path / "a.tif", tmp_path / "tif", *WINDOWS, *words) == 0
    for name in ("a.tif", "a_scores.tif", "a_entropy.tif"):
        assert np.array_equal(read(tmp_path / "cog" / name), read(tmp_path / "tif" / name))
        with rasterio.open(tmp_path / "cog" / name) as one, rasterio.open(tmp_path / "tif" / name) as two:
            assert one.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and one.overviews(1)
            assert (one.crs, one.transform, one.tags(1)) == (two.crs, two.transform, two.tags(1))
            assert str(one.nodata) == str(two.nodata) and one.scales == two.scales
    with rasterio.open(tmp_path / "cog/a.tif") as source:
        assert source.colormap(1)[2][:3] == CLASSES.colors[2]
        assert set(np.unique(source.read(1, out_shape=(175, 150)))) <= {0, 1, 2}  # overviews mix no ids
    assert names(tmp_path / "cog") == names(tmp_path / "tif")


def test_png_of_plain_images_only(tmp_path, monkeypatch):
    use(monkeypatch, Bands())
    image = blobs(90, 70)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / "in/plain.png")
    write_scene(tmp_path / "in/map.tif", image)
    assert large(tmp_path / "in", tmp_path / "out", *WINDOWS, "--FORMAT", "png") == 0
    expected = ["map.tif", "map.tif.aux.xml", "map_overlay.png", "plain.png", "plain_overlay.png"]
    assert names(tmp_path / "out") == expected
    with Image.open(tmp_path / "out/plain.png") as picture:
        assert picture.mode == "P" and picture.getpalette()[:9] == [v for c in CLASSES.colors for v in c]
        assert np.array_equal(np.array(picture), image.argmax(0))


class PowerCutError(RuntimeError):
    """Stands for a power cut."""


def interrupted(monkeypatch, rows: int, *words) -> None:
    """Run until this many rows are complete, then stop; every row of tiles is a checkpoint."""
    monkeypatch.setattr(resume, "SECONDS", 0.0)
    whole = SceneResults.advance

    def advance(self, bottom):
        whole(self, bottom)
        if bottom >= rows:
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(SceneResults, "advance", advance)
        with pytest.raises(PowerCutError):
            large(*words)


MORE = ("--SCORES", "probabilities:uint8,entropy:float16", "--VECTOR", "--OVERLAP", "0.6", *WINDOWS)


@pytest.mark.parametrize("kind", ["tif", "cog"])
def test_resume_gives_the_same_files(kind, tmp_path, monkeypatch, capsys):
    network = use(monkeypatch, Bands(5))
    image = blobs(900, 150)
    image[:, 500:520] = 0
    source = write_scene(tmp_path / "a.tif", image, nodata=0)
    more = (*MORE, "--FORMAT", kind)
    assert large(source, tmp_path / "whole", *more) == 0
    every = sum(call[0] for call in network.calls)
    output = tmp_path / "parts"
    for rows in (300, 640):
        interrupted(monkeypatch, rows, source, output, *more, "--RESUME")
        unfinished = names(output)
        assert all(name.endswith((".part", ".resume.json")) for name in unfinished), unfinished
    with (output / "a.tif.part").open("ab") as file:
        file.write(b"written after the last checkpoint" * 1000)
    network.calls.clear()
    assert large(source, output, *more, "--RESUME") == 0
    assert sum(call[0] for call in network.calls) < 0.6 * every
    assert names(output) == names(tmp_path / "whole")
    for name in names(output):
        if name.endswith(".tif"):
            assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    pictures = [np.array(Image.open(folder / "a_overlay.png")) for folder in (output, tmp_path / "whole")]
    assert np.array_equal(*pictures)
    shares = [text.split("results are in")[0] for text in capsys.readouterr().out.split("share of")[1:]]
    assert shares[0] == shares[-1]


def test_resume_refuses_other_settings_and_starts_anew_without_the_flag(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands())
    source, output = write_scene(tmp_path / "a.tif", blobs(700, 100)), tmp_path / "out"
    interrupted(monkeypatch, 300, source, output, *WINDOWS)
    assert large(source, output, *WINDOWS, "--RESUME", "--BLEND", "flat") == 2
    assert "was begun with another blend; repeat the flags of that run" in capsys.readouterr().err
    assert json.loads((output / "a.resume.json").read_text())["progress"]["rows"] == 256
    assert large(source, output, *WINDOWS, "--BLEND", "flat") == 0
    assert names(output) == ["a.tif", "a.tif.aux.xml", "a_overlay.png"]
    (output / "b.resume.json").write_text("damaged")
    write_scene(tmp_path / "b.tif", blobs(50, 50))
    assert large(tmp_path / "b.tif", output, *WINDOWS, "--RESUME") == 0


def test_resume_leaves_out_finished_scenes(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands())
    (tmp_path / "in").mkdir()
    for name, height in (("a", 100), ("b", 700)):
        write_scene(tmp_path / f"in/{name}.tif", blobs(height, 100))
    interrupted(monkeypatch, 300, tmp_path / "in", tmp_path / "out", *WINDOWS)
    assert "a.tif" in names(tmp_path / "out") and "b.tif" not in names(tmp_path / "out")
    before = (tmp_path / "out/a.tif").stat().st_mtime_ns
    shutil.copytree(tmp_path / "out", tmp_path / "lost")
    (tmp_path / "lost/a.tif").unlink()
    assert large(tmp_path / "in", tmp_path / "lost", *WINDOWS, "--RESUME") == 0
    assert np.array_equal(read(tmp_path / "lost/a.tif"), read(tmp_path / "out/a.tif"))
    capsys.readouterr()
    assert large(tmp_path / "in", tmp_path / "out", *WINDOWS, "--RESUME") == 0
    assert (tmp_path / "out/a.tif").stat().st_mtime_ns == before
    assert not any(name.endswith((".json", ".part")) for name in names(tmp_path / "out"))
    resumed = capsys.readouterr().out.split("share of")[1]
    assert large(tmp_path / "in", tmp_path / "new", *WINDOWS) == 0
    assert capsys.readouterr().out.split("share of")[1].splitlines()[1:4] == resumed.splitlines()[1:4]


def test_batches_shrink_when_memory_runs_out(tmp_path, monkeypatch, capsys):
    network = use(monkeypatch, Bands())
    source = write_scene(tmp_path / "a.tif", blobs(200, 200))
    inner = network.probabilities

    def probabilities(outputs):
        if len(outputs["logits"]) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return inner(outputs)

    network.probabilities = probabilities
    assert large(source, tmp_path / "out", *WINDOWS, "--BATCH_SIZE", "8") == 0
    assert np.array_equal(read(tmp_path / "out/a.tif")[0], blobs(200, 200).argmax(0))
    network.probabilities = lambda outputs: bytearray(1 << 62)
    assert large(source, tmp_path / "none", *WINDOWS) == 2
    assert "does not fit in memory; give a smaller --WINDOW" in capsys.readouterr().err
    assert names(tmp_path / "none") == []


def test_backing_off():
    told = []

    def predict(images):
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images * 2

    careful = BackingOff(predict, told.append)
    images = torch.arange(13.0)[:, None]
    assert torch.equal(careful(images), images * 2)
    assert careful.limit == 3 and len(told) == 2
    assert torch.equal(careful(images), images * 2) and len(told) == 2
    assert not is_out_of_memory(RuntimeError("shapes differ")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, match="shapes differ"):
        BackingOff(lambda images: (_ for _ in ()).throw(RuntimeError("shapes differ")), told.append)(images)


def test_memory_is_told_by_width_and_window_and_not_by_height(tmp_path):
    options = WindowOptions((512, 512), 0.25, 4)
    results = ResultOptions()
    told = []
    for height in (4000, 32000):
        path = tmp_path / f"{height}.tif"
        profile = {"driver": "GTiff", "count": 3, "height": height, "width": 4000, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile, tiled=True, SPARSE_OK=True):
            pass
        told.append(memory_estimate(raster_info(path), CLASSES, options, results))
    assert told[1] < 1.1 * told[0]


def test_no_seams_on_a_real_scene(tmp_path, monkeypatch):
    """The change across window borders is that between other neighbours; side by side it is larger."""
    scene = shared_data("scene-bluemarble") / "images" / "world.tif"
    with rasterio.open(scene) as source:
        image = source.read(window=((700, 1000), (2600, 3100)))
    write_scene(tmp_path / "a.tif", image)
    use(monkeypatch, Bands(15))  # the border is felt seven pixels inside

    def changes(*words) -> np.ndarray:
        assert large(tmp_path / "a.tif", tmp_path / "out", *words, "--SCORES", "--NUM_WORKERS", "1") == 0
        return np.abs(np.diff(read(tmp_path / "out/a_scores.tif"), axis=2)).mean((0, 1))

    whole = changes("--WINDOW", "500")  # how much of the change lies in the picture
    ratios = {}
    for blend, overlap in (("gaussian", 32), ("none", 0)):
        change = changes("--WINDOW", "128", "--OVERLAP", str(overlap / 128), "--BLEND", blend) / whole
        edges = np.zeros(len(whole), bool)
        for left in range(128 - overlap, 500 - 128, 128 - overlap):
            edges[[left - 1, left + overlap // 2 - 1, left + overlap - 1]] = True
        ratios[blend] = change[edges].mean() / change[~edges].mean()
    assert ratios["gaussian"] < 1.05 < ratios["none"], ratios
