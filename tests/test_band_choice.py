"""Bands that are selected, ordered and stacked: the same pixels for every program."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from nets.errors import UserError
from tests.helpers import shared_data
from tests.tiny_dataset import add_heights, write_dataset, write_raster
from utils.data.band_choice import TrainedBands, named_bands
from utils.data.band_index import parse_band_index
from utils.data.layout import Reading, scan_dataset
from utils.data.pieces import join, selected, stacked
from utils.data.raster import Window, raster_info, read_image
from utils.data.raster_reader import ImageReader
from utils.data.source import read_source, select_bands, source_info, source_of
from utils.inference.inputs import collect_jobs
from utils.options import train_options

RNG = np.random.default_rng(5)
GRID = {"crs": "EPSG:32633", "transform": Affine(10.0, 0.0, 400000.0, 0.0, -10.0, 5000000.0)}
NAMES = ("blue", "green", "red", "nir")


def scan(root, **reading):
    return scan_dataset(root, reading=Reading(**reading), progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "numbers from 1 on or names"),
        ("1,,2", "numbers from 1 on or names"),
        ("0,1", "counted from 1"),
        ("-1", "counted from 1"),
        ("4,3,4", "band 4 twice"),
        ("red,RED", "band RED twice"),
        ("01,1", "band 1 twice"),
    ],
)
def test_a_mistyped_choice_is_one_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_band_index(text)
    with pytest.raises(UserError, match=message):
        train_options([f"--BAND_INDEX={text}"])


def test_numbers_from_one_and_names():
    assert named_bands(("4", "RED", "1"), NAMES, "a.tif") == (3, 2, 0)
    for words, message in {
        ("5",): r"--BAND_INDEX 5: a\.tif has no such band; there are blue, green, red, nir \(1 to 4\)",
        ("swir",): "has no such band",
        ("3", "red"): "red is band 3 a second time",
    }.items():
        with pytest.raises(UserError, match=message):
            named_bands(words, NAMES, "a.tif")
    with pytest.raises(UserError, match="2 bands of this name; give numbers"):
        named_bands(("red",), ("red", "Red"), "a.tif")


def files_of_every_kind(folder):
    """An image of four bands with no data in places, as every kind of file."""
    image = RNG.integers(1, 99, (4, 20, 23)).astype(np.uint8)
    image[:, :3] = 0
    image[2, 5] = 0
    yield image, write_raster(folder / "a.tif", image, nodata=0, interleave="band")
    yield image, write_raster(folder / "p.tif", image, nodata=0, interleave="pixel", photometric="MINISBLACK")
    yield image, write_raster(folder / "a.npy", image)
    yield image[:3], write_raster(folder / "a.png", image[:3])
    values = image.astype(np.float32)
    values[1, 7, 7] = np.nan
    yield values, write_raster(folder / "f.tif", values)


def test_a_selection_is_what_a_file_of_these_bands_would_be(tmp_path):
    for number, (image, path) in enumerate(files_of_every_kind(tmp_path)):
        info = raster_info(path)
        order = (2, 0)
        chosen = select_bands(info, order)
        assert chosen.bands == 2 and chosen.pieces[0].bands == order
        plain = tmp_path / f"only{number}.tif"
        write_raster(plain, image[list(order)], nodata=info.nodata)
        expected, valid = read_image(plain)
        for window in (None, Window(2, 3, 11, 9)):
            got = read_source(source_of(chosen), window)
            part = np.s_[...] if window is None else np.s_[..., 2:13, 3:12]
            np.testing.assert_array_equal(got[0], expected[part])
            np.testing.assert_array_equal(got[1], valid[part])
            assert got[0].dtype == image.dtype
        with ImageReader(source_of(chosen), threads=2) as reader:
            np.testing.assert_array_equal(reader.read(Window(0, 0, 20, 23))[0], expected)


def test_only_the_chosen_bands_are_read(tmp_path, monkeypatch):
    image = RNG.integers(0, 9, (4, 8, 8)).astype(np.int16)
    path = write_raster(tmp_path / "a.tif", image, nodata=-1)
    asked = []

    class Spy(rasterio.DatasetReader):
        def read(self, indexes=None, **more):
            asked.append(indexes)
            return super().read(indexes, **more)

        def dataset_mask(self, **more):
            raise AssertionError("the mask of all bands is made from all bands")

    monkeypatch.setattr(rasterio, "open", lambda name: Spy(rasterio._path._parse_path(str(name))))
    read_source(source_of(select_bands(raster_info(path), (3, 1))))
    assert asked == [[4, 2]]


def test_stacked_files_are_joined_in_any_order():
    parts = [(np.full((2, 1, 1), n, dtype), np.array([[n != 3]])) for n, dtype in ((1, "u1"), (2, "i2"))]
    parts += [(np.full((1, 1, 1), 3, "u1"), np.array([[False]]))]
    source = stacked([("a", 2), ("b", 2), ("c", 1)])
    assert [piece.places for piece in source] == [(0, 1), (2, 3), (4,)]
    image, valid = join(source, parts)
    assert image[:, 0, 0].tolist() == [1, 1, 2, 2, 3] and image.dtype == np.int16 and not valid.any()
    chosen = selected(source, (4, 1, 2))
    assert [(p.path, p.bands, p.places) for p in chosen] == [
        ("a", (1,), (1,)),
        ("b", (0,), (2,)),
        ("c", (0,), (0,)),
    ]
    image, _ = join(chosen, [(image[:1], valid) for image, valid in parts])
    assert image[:, 0, 0].tolist() == [3, 1, 2]


def test_extra_images_are_behind_the_image_and_their_holes_are_holes(tmp_path):
    image = RNG.integers(1, 99, (3, 16, 16)).astype(np.uint8)
    height = RNG.normal(500, 9, (16, 16)).astype(np.float32)
    height[2, 3], height[4, 5] = -9999, np.nan
    path = write_raster(tmp_path / "a.tif", image, **GRID)
    extra = write_raster(tmp_path / "dem" / "a.tif", height, nodata=-9999, **GRID)
    info = source_info(path, [extra])
    assert (info.bands, info.dtype) == (4, "float32")
    got, valid = read_source(source_of(info), Window(0, 0, 16, 16))
    np.testing.assert_array_equal(got[:3], image)
    np.testing.assert_array_equal(got[3], height)
    assert np.argwhere(~valid).tolist() == [[2, 3], [4, 5]]
    # Only what is selected counts; and a raster of which nothing is selected was named for nothing.
    assert select_bands(info, (3,)).pieces[0].path == extra
    with pytest.raises(UserError, match=r"none of the bands of .*dem.* is used"):
        select_bands(info, (2, 0))


def test_extra_images_must_lie_on_the_same_grid(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8), **GRID)
    small = write_raster(tmp_path / "small.tif", np.ones((8, 7), np.uint8))
    with pytest.raises(UserError, match=r"small\.tif .* has 8 x 7 pixels .*its image .*a\.tif has 8 x 8"):
        source_info(path, [small])
    for shift, fails in ((4.0, False), (6.0, True)):
        moved = {**GRID, "transform": GRID["transform"] @ Affine.translation(shift / 10, 0)}
        extra = write_raster(tmp_path / f"m{shift}.tif", np.ones((8, 8), np.uint8), **moved)
        if fails:
            with pytest.raises(UserError, match=r"m6\.0\.tif lies up to 0\.6 pixels beside its image"):
                source_info(path, [extra])
        else:
            assert source_info(path, [extra]).bands == 2
    plain = write_raster(tmp_path / "plain.png", np.ones((8, 8), np.uint8))
    assert source_info(path, [plain]).bands == 2  # says nothing of where it lies


def test_a_data_set_with_selected_and_stacked_bands(tmp_path):
    root = add_heights(write_dataset(tmp_path / "data", bands=4))
    info = scan(root, band_index="2,5,4", extra_images="dem")
    assert (info.bands, info.band_names) == (3, ("band_2", "dem", "band_4"))
    assert info.sources.to_dict()["index"] == [2, 5, 4] and info.sources.files == (4, 1)
    assert scan(root, band_index="dem", extra_images="dem").sources.index == (4,)
    image, _ = read_image(root / "images" / "t0.tif")
    got, _ = read_source(info.splits["train"][0].source)
    np.testing.assert_array_equal(got, image[[1, 0, 3]])
    with pytest.raises(UserError, match=r"3 bands|give --BANDS 3"):
        scan_dataset(root, bands=5, reading=Reading(band_index="1,2,3"), progress=False)
    (root / "dem" / "t1.tif").unlink()
    with pytest.raises(UserError, match=r"dem \(--EXTRA_IMAGES\) has no raster t1 .*images/t1\.tif"):
        scan(root, extra_images="dem")
    with pytest.raises(UserError, match="nothing does not exist"):
        scan(root, extra_images="nothing")
    with pytest.raises(UserError, match="is a file and there are 5 images"):
        scan(root, extra_images=str(root / "dem" / "t0.tif"))


def test_names_in_the_list_of_classes_name_the_bands_before_they_are_selected(tmp_path):
    root = write_dataset(tmp_path / "data", bands=4)
    (root / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"], "bands": list(NAMES)}))
    info = scan(root, band_index="nir,red")
    assert info.band_names == ("nir", "red") and info.sources.names == NAMES


def trained(**more):
    values = {"count": 3, "names": ("red", "green", "blue"), "index": (3, 2, 1)}
    values |= {"available": ("coastal", "blue", "green", "red"), "files": (4,)}
    return TrainedBands(**{**values, **more})


def test_what_a_network_takes_of_an_image():
    bands = trained()
    assert bands.choose((None,) * 4, "a") == (3, 2, 1)  # the full count: the same places
    assert bands.choose(("blue", "red", "x", "green"), "a") == (1, 3, 0)  # the names count more
    assert bands.choose(("red", "Green", "blue"), "a") == (0, 1, 2)
    with pytest.raises(UserError, match=r"a has 3 bands; .*bands 4,3,2 \(red, green, blue\) of 4: give"):
        bands.choose((None,) * 3, "a")
    with pytest.raises(UserError, match="a has 5 bands"):
        bands.choose((None,) * 5, "a")
    # `band_4` is no name of a band: it says where the band was, which another file knows nothing of.
    unnamed = trained(
        names=("band_4", "band_3", "band_2"), available=("band_1", "band_2", "band_3", "band_4")
    )
    assert unnamed.choose((None,) * 4, "a") == (3, 2, 1)
    with pytest.raises(UserError, match="give images with all 4"):
        unnamed.choose(("band_2", "band_3", "band_4"), "a")
    old = TrainedBands(3, ("red", "green", "blue"))
    assert old.choose((None,) * 3, "a") is None
    with pytest.raises(UserError, match="a has 4 bands; the network was trained on 3"):
        old.choose((None,) * 4, "a")


def test_a_network_that_needs_extra_images_says_so():
    bands = TrainedBands(3, ("red", "nir", "dem"), (0, 1, 2), ("red", "nir", "dem"), (2, 1))
    with pytest.raises(UserError, match=r"a has 2 bands; .* --EXTRA_IMAGES \(dem\): give --EXTRA_IMAGES"):
        bands.choose(("red", "nir"), "a")
    assert bands.choose(("red", "nir", None), "a") == (0, 1, 2)
    assert bands.choose(("nir", "red", None), "a") == (1, 0, 2)  # the extra band is known by its place
    assert bands.choose((None,) * 3, "a") == (0, 1, 2)


def test_jobs_hold_selected_bands_only(tmp_path):
    image = RNG.integers(0, 99, (4, 9, 9)).astype(np.uint8)
    write_raster(tmp_path / "in" / "a.tif", image)
    jobs = collect_jobs(tmp_path / "in", tmp_path / "out", trained()).jobs
    got, _ = read_source(source_of(jobs[0].info))
    np.testing.assert_array_equal(got, image[[3, 2, 1]])


def test_real_images_by_number_and_by_name():
    root = shared_data("water8")
    by_number, by_name = (scan(root, band_index=text) for text in ("4,3,2", "red,Green,blue"))
    assert by_number.band_names == by_name.band_names == ("red", "green", "blue")
    assert by_number.splits["train"][0].source == by_name.splits["train"][0].source
