"""Images that stay open: the same pixels as read_image, whatever is the file, the windows and the threads."""

import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from nets.errors import UserError
from tests.tiny_dataset import write_raster
from utils.data.pieces import Piece
from utils.data.raster import Window, raster_info, read_image
from utils.data.raster_reader import ImageReader, _cuts

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 200, (3, 150, 101)).astype(np.uint8)


def sources(folder) -> dict:
    tiled = write_raster(folder / "tiled.tif", IMAGE)
    more = {"driver": "GTiff", "count": 3, "height": 150, "width": 101, "dtype": "uint8", "nodata": 7}
    with rasterio.open(tiled, "w", **more, tiled=True, blockxsize=16, blockysize=32) as file:
        file.write(IMAGE)
    with rasterio.open(folder / "strips.tif", "w", **more, blockysize=3) as file:
        file.write(IMAGE)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(tiled, "in/tiled.tif")
    rasterio.shutil.copy(tiled, folder / "joined.vrt", driver="VRT")
    return {
        "tiled": tiled,
        "strips": folder / "strips.tif",
        "vrt": folder / "joined.vrt",
        "zip": f"/vsizip/{folder}/a.zip/in/tiled.tif",
        "png": write_raster(folder / "a.png", IMAGE),
        "npy": write_raster(folder / "a.npy", IMAGE),
    }


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_windows_equal_read_image(tmp_path, threads):
    for kind, source in sources(tmp_path).items():
        info = raster_info(source)
        assert (info.height, info.width, info.bands) == (150, 101, 3), kind
        whole, valid = read_image(source)
        np.testing.assert_array_equal(whole, IMAGE)
        with ImageReader((Piece(source, (2, 0), (0, 1)),), threads=threads) as reader:
            for window in (Window(0, 0, 150, 101), Window(33, 5, 40, 77), Window(149, 100, 1, 1)):
                image, ok = reader.read(window)
                part = np.s_[
                    window.top : window.top + window.height, window.left : window.left + window.width
                ]
                np.testing.assert_array_equal(image, whole[[2, 0]][(slice(None), *part)])
                np.testing.assert_array_equal(ok, valid[part])


def test_cuts_follow_the_blocks():
    assert _cuts(0, 100, 16, 1) == [(0, 100)]
    assert _cuts(5, 30, 16, 2) == [(5, 27), (32, 3)]
    for start, length, block, count in RNG.integers(1, 50, (50, 4)).tolist():
        pieces = _cuts(start, length, block, count)
        assert len(pieces) <= count and pieces[0][0] == start and sum(size for _, size in pieces) == length
        assert all(first % block == 0 and size > 0 for first, size in pieces[1:])


def test_an_address_out_of_reach_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"/vsizip/.*none\.tif cannot be read .*check the address") as error:
        raster_info(f"/vsizip/{tmp_path}/a.zip/none.tif")
    assert "\n" not in str(error.value)
