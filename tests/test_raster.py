import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from nets.errors import UserError
from tests.helpers import shared_data
from tests.tiny_dataset import write_raster
from utils.data.raster import Window, label_info, raster_info, read_image, read_label, read_palette

RNG = np.random.default_rng(1)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".npy"])
def test_image_keeps_values_and_dtype_by_window(tmp_path, dtype, suffix):
    image = (RNG.normal(size=(5, 9, 7)) * 50).astype(dtype)
    path = write_raster(tmp_path / f"a{suffix}", image)
    info = raster_info(path)
    assert (info.bands, info.height, info.width, info.dtype) == (5, 9, 7, dtype)
    whole, valid = read_image(path)
    assert whole.dtype == dtype and valid.all()
    np.testing.assert_array_equal(whole, image)
    part, valid = read_image(path, Window(2, 1, 4, 5))
    np.testing.assert_array_equal(part, image[:, 2:6, 1:6])
    assert valid.shape == (4, 5)


@pytest.mark.parametrize(("shape", "bands"), [((8, 6), 1), ((3, 8, 6), 3), ((8, 6, 3), 3), ((4, 9, 4), 4)])
def test_npy_axes(tmp_path, shape, bands):
    array = RNG.integers(0, 99, shape).astype(">u2")
    image, _ = read_image(write_raster(tmp_path / "a.npy", array))
    assert len(image) == bands and image.dtype == np.uint16 and image.dtype.isnative
    if shape == (4, 9, 4):
        np.testing.assert_array_equal(image, np.moveaxis(array, 2, 0))


def test_nan_infinity_and_nodata_are_invalid(tmp_path):
    image = np.ones((2, 4, 4), dtype=np.float32)
    image[0, 0, 0], image[1, 1, 1] = np.nan, np.inf
    image[:, 2, 2] = -9999
    _, valid = read_image(write_raster(tmp_path / "a.tif", image, nodata=-9999))
    expected = np.ones((4, 4), dtype=bool)
    expected[[0, 1, 2], [0, 1, 2]] = False
    np.testing.assert_array_equal(valid, expected)


def test_palette_is_expanded_for_images_and_kept_for_labels(tmp_path):
    indices = (np.arange(24) % 3).reshape(4, 6).astype(np.uint8)
    palette = Image.fromarray(indices, "P")
    palette.putpalette([1, 2, 3, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "p.png", transparency=1)
    image, valid = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(image[:, 0, 1], [40, 50, 60])
    np.testing.assert_array_equal(valid, indices != 1)
    assert raster_info(tmp_path / "p.png").bands == 3 and label_info(tmp_path / "p.png").bands == 1
    label, valid = read_label(tmp_path / "p.png")
    np.testing.assert_array_equal(label, indices)
    assert not valid[0, 1] and read_label(tmp_path / "p.png", class_values={0, 1, 2})[1].all()
    assert read_palette(tmp_path / "p.png")[2] == (70, 80, 90)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_a_mask_and_no_band(tmp_path, suffix):
    rgba = RNG.integers(1, 255, (4, 5, 6)).astype(np.uint8)
    rgba[3] = 255
    rgba[3, 0, 0] = 0
    path = write_raster(tmp_path / f"a{suffix}", rgba)
    if suffix == ".tif":
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    image, valid = read_image(path)
    np.testing.assert_array_equal(image, rgba[:3])
    assert not valid[0, 0] and valid.sum() == 29 and raster_info(path).has_alpha


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_near_infrared_that_is_called_alpha_stays_a_band(tmp_path):
    # GDAL calls the fourth byte band alpha unless told otherwise.
    bands = RNG.integers(0, 200, (4, 5, 6)).astype(np.uint8)
    bands[3, 0, 0] = 0
    path = write_raster(tmp_path / "rgbn.tif", bands)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    image, valid = read_image(path)
    np.testing.assert_array_equal(image, bands)
    assert valid.all() and raster_info(path).bands == 4 and not raster_info(path).has_alpha


def test_pages_of_a_stack_are_bands(tmp_path):
    stack = RNG.integers(0, 60000, (12, 5, 6)).astype(np.uint16)
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "s.tif", Window(1, 2, 3, 4))[0], stack[:, 1:4, 2:6])
    assert raster_info(tmp_path / "s.tif").bands == 12
    with pytest.raises(UserError, match="12 bands"):
        read_label(tmp_path / "s.tif")


def test_georeference_and_band_names():
    info = raster_info(shared_data("s2-eopatch") / "images" / "scene_2.tif")
    assert info.crs is not None and info.transform is not None and info.bands == 13
    info = raster_info(shared_data("water8") / "images" / "tile_001.tif")
    assert info.crs is None and info.transform is None and info.band_names[4] == "nir"


def test_float_labels(tmp_path):
    label = np.array([[0, 1], [2, np.nan]], dtype=np.float32)
    values, valid = read_label(write_raster(tmp_path / "a.tif", label))
    assert values.dtype == np.int64 and values.tolist() == [[0, 1], [2, 0]]
    assert valid.tolist() == [[True, True], [True, False]]
    label[0, 0] = 0.5
    with pytest.raises(UserError, match=r"a\.tif holds 0\.5 in 1 pixels"):
        read_label(write_raster(tmp_path / "a.tif", label))
    label[0, 0] = -3.4e38
    values, valid = read_label(write_raster(tmp_path / "a.tif", label, nodata=label[0, 0].item()))
    assert not valid[0, 0]


def test_sixteen_bit_labels_do_not_wrap(tmp_path):
    label = np.array([[0, 256, 65535]], dtype=np.uint16)
    assert read_label(write_raster(tmp_path / "a.png", label))[0].tolist() == label.tolist()


def test_labels_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="JPEG: its compression"):
        read_label(write_raster(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8)))
    with pytest.raises(UserError, match="3 bands of uint16; a label is one band"):
        read_label(write_raster(tmp_path / "a.png", np.zeros((3, 8, 8), np.uint16)))
    with pytest.raises(UserError, match="5 bands of uint8"):
        read_label(write_raster(tmp_path / "a.tif", np.zeros((5, 8, 8), np.uint8)))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_a_label_are_packed(tmp_path, suffix, alpha):
    colors = np.zeros((3 + alpha, 6, 4), np.uint8)
    colors[:, 0, 0] = (255, 1, 2, 255)[: 3 + alpha]
    if alpha:
        colors[3, 1:] = 255
    path = write_raster(tmp_path / f"a{suffix}", colors)
    label, valid = read_label(path, Window(0, 0, 3, 2))
    assert label.tolist() == [[0xFF0102, 0], [0, 0], [0, 0]] and label_info(path).bands == 3
    assert valid.tolist() == [[True, not alpha], [True, True], [True, True]]


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".npy"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.95])
def test_truncated_files_are_named(tmp_path, suffix, part):
    noise = RNG.integers(0, 255, (3, 40, 40)).astype(np.uint8)
    path = write_raster(tmp_path / f"broken{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError, match=rf"broken\{suffix} .*read") as error:
        read_image(path)
    assert "\n" not in str(error.value) and "GDAL_" not in str(error.value)


def test_files_that_are_no_rasters(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"a\.txt is not a raster"):
        raster_info(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"b\.tif does not exist"):
        raster_info(tmp_path / "b.tif")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"o\.npy cannot be read"):
        read_image(tmp_path / "o.npy")
    with pytest.raises(UserError, match="complex64"):
        read_image(write_raster(tmp_path / "c.tif", np.zeros((2, 3, 3), np.complex64)))
    path = write_raster(tmp_path / "w.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="does not lie inside"):
        read_image(path, Window(2, 2, 3, 1))
