"""Plain pictures are read as GDAL reads them, only faster; what is not plain is left to GDAL."""

import numpy as np
import pytest
from PIL import Image

from nets.errors import UserError
from tests.helpers import shared_data
from utils.data.geometry import resize_image
from utils.data.pictures import read_picture
from utils.data.raster import Window, check_image, read_image, read_label, read_pages
from utils.data.raster_files import open_raster

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
WINDOW = Window(7, 11, 20, 30)


def by_gdal(path, window=None):
    with open_raster(path) as pages:
        return read_pages(pages, window)[0]


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "colour"])
@pytest.mark.parametrize("window", [None, WINDOW])
def test_a_png_is_what_gdal_reads(tmp_path, pixels, window):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    picture = read_picture(path, window)
    np.testing.assert_array_equal(picture, by_gdal(path, window))
    np.testing.assert_array_equal(read_image(path, window)[0], picture)


def test_a_large_png_is_decoded_whole_and_cut(tmp_path):
    pixels = RNG.integers(0, 5, (600, 700), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png") is None
    for read in (lambda *args: read_image(*args)[0][0], lambda *args: read_label(*args)[0]):
        np.testing.assert_array_equal(read(tmp_path / "a.png", WINDOW), pixels[7:27, 11:41])


def test_a_jpeg_is_what_pillow_reads_and_near_to_gdals():
    path = next((shared_data("camvid-small") / "images").glob("*.jpg"))
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(path)[0], expected)
    np.testing.assert_array_equal(read_image(path, WINDOW)[0], expected[:, 7:27, 11:41])
    far = np.abs(by_gdal(path).astype(int) - expected)
    assert far.mean() < 1.5 and np.percentile(far, 99) <= 12


def test_indices_of_a_palette(tmp_path):
    image = Image.fromarray(GREY, "P")
    image.putpalette([value // 3 for value in range(768)])
    image.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png") is None
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", indices=True)[0], GREY)


def test_what_is_not_plain_is_left_to_gdal(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    assert read_picture(path) is not None and read_picture(str(path)) is None
    assert read_picture(tmp_path / "none.png") is None and read_picture(tmp_path / "a.tif") is None
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset/>")
    assert read_picture(path) is None
    for name, image, options in (
        ("deep.png", Image.fromarray(GREY.astype(np.uint16)), {}),
        ("alpha.png", Image.fromarray(np.dstack([RGB, GREY])), {}),
        ("clear.png", Image.fromarray(GREY), {"transparency": 3}),
        ("bits.png", Image.fromarray(GREY > 99), {}),
        ("ink.jpg", Image.fromarray(RGB).convert("CMYK"), {}),
    ):
        image.save(tmp_path / name, **options)
        assert read_picture(tmp_path / name) is None, name
    Image.fromarray(RGB).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-200])
    with pytest.raises(UserError, match="may be damaged"):
        read_image(tmp_path / "cut.jpg")


def test_the_check_finds_damage_in_the_midst_of_a_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, quality=95)
    check_image(path)
    data = bytearray(path.read_bytes())
    data[-1000:-900] = b"\xff\xd3" * 50
    path.write_bytes(data)
    with pytest.raises(UserError, match="may be damaged"):
        check_image(path)


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("size", [(61, 83), (23, 31)])
def test_bytes_are_resized_as_floats_are_and_rounded(bands, size):
    image = RNG.integers(0, 256, (bands, 40, 50), dtype=np.uint8)
    resized = resize_image(image, size)
    assert resized.dtype == np.uint8
    exact = resize_image(image.astype(np.float32), size)
    assert np.abs(resized - exact).max() < 1.6 and abs((resized - exact).mean()) < 0.1
    views = resize_image(np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1), size)
    np.testing.assert_array_equal(views, resized)
