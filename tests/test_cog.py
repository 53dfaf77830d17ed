"""Cloud-optimised GeoTIFFs and their overviews."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from utils.data.raster_files import open_quietly
from utils.inference import cog
from utils.inference.cog import overviews_of, write_cog

PLACE = {"crs": "EPSG:32633", "transform": Affine(10.0, 0.0, 465180.0, 0.0, -10.0, 5080250.0)}


def write_source(path, values):
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band", "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", nodata=255, **shape, **tiles, **PLACE) as file:
        file.write(values)
    return path


def test_overviews_are_made_until_one_fits_into_a_tile(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (2, 300, 520)).astype(np.uint8)
    values = values.repeat(4, 1).repeat(4, 2)
    source = write_source(tmp_path / "a.part", values)
    before = source.read_bytes()
    for resampling in ("mode", "average"):
        write_cog(source, tmp_path / "a.tif", resampling)
        with rasterio.open(tmp_path / "a.tif") as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.overviews(1) == [2, 4, 8] and file.block_shapes == [(512, 512)] * 2
            assert np.array_equal(file.read(), values) and file.transform == PLACE["transform"]
        for level, step in enumerate((2, 4)):
            with rasterio.open(tmp_path / "a.tif", overview_level=level) as file:
                assert np.array_equal(file.read(), values[:, ::step, ::step])
    assert source.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.part", "a.tif"]


def test_a_small_file_needs_none_and_those_of_an_interrupted_run_are_not_taken(tmp_path):
    for side, expected in ((500, []), (600, [2])):
        source = write_source(tmp_path / "a.part", np.full((1, side, side), 3, np.uint8))
        overviews_of(source).write_bytes(b"half of it")
        write_cog(source, tmp_path / "a.tif", "mode")
        with rasterio.open(tmp_path / "a.tif") as file:
            assert file.overviews(1) == expected and (file.read() == 3).all()
        assert not overviews_of(source).exists()


def test_overviews_of_many_bands_are_made_band_by_band(tmp_path, monkeypatch):
    """Joined in each tile, they would be compressed anew for every band: hours for a large scene."""
    seen = []

    def copy(source, *arguments, **options):
        with open_quietly(overviews_of(source)) as file:
            seen.append((file.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"], file.shape, file.overviews(1)))
        raise KeyboardInterrupt

    monkeypatch.setattr(cog.rasterio.shutil, "copy", copy)
    source = write_source(tmp_path / "a.part", np.zeros((3, 1100, 600), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        write_cog(source, tmp_path / "a.tif", "average")
    assert seen == [("BAND", (550, 300), [2])]
    assert os.listdir(tmp_path) == ["a.part"]


def test_overviews_that_did_not_reach_the_disk_are_an_error(tmp_path, monkeypatch):
    source = write_source(
        tmp_path / "a.part", np.random.default_rng(0).integers(0, 99, (2, 1100, 1100), np.uint8)
    )
    real = rasterio.io.DatasetWriter.build_overviews

    def cut(file, *arguments):
        real(file, *arguments)
        file.close()
        os.truncate(overviews_of(source), overviews_of(source).stat().st_size // 2)

    monkeypatch.setattr(rasterio.io.DatasetWriter, "build_overviews", cut)
    with pytest.raises(OSError, match="No space left"):
        write_cog(source, tmp_path / "a.tif", "mode")
    assert os.listdir(tmp_path) == ["a.part"]
