"""What predict_large.py writes: scores of every type, cloud-optimised GeoTIFF and PNG."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from tests.scene_helpers import CLASSES, WINDOWS, Bands, blobs, large, names, read, use, write_scene
from utils.inference import results


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


@pytest.mark.parametrize(("many", "told"), [(1, True), (10**9, False)])
def test_what_takes_long_behind_a_full_progress_bar_is_said(tmp_path, monkeypatch, capsys, many, told):
    use(monkeypatch, Bands())
    monkeypatch.setattr(results, "_MANY", many)
    write_scene(tmp_path / "a.tif", blobs(70, 60))
    assert large(tmp_path / "a.tif", tmp_path / "o", *WINDOWS, "--FORMAT", "cog", "--VECTOR", "gpkg") == 0
    line = "a: all windows are done; now the polygons and overviews are made"
    assert (line in capsys.readouterr().out) is told


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
