"""A JPEG is decoded down to the last row of a window, and what is decoded is what the whole gives."""

import io

import numpy as np
import pytest
from PIL import Image

from utils.data import pictures
from utils.data.jpeg_header import without_rows_below
from utils.data.raster import Window, read_image

MANY = 2**25
RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((131, 101))


def encoded(image=SMOOTH, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {
            "subsampling": "4:2:0",
            "optimize": True,
            "comment": b"\xff\xda\xff\xc0",
            "exif": b"Exif\0\0" + b"\xff\xc4" * 9,
        },
        {"image": SMOOTH.convert("L")},
        {"restart_marker_rows": 1},
    ],
    ids=["444", "422", "420", "segments", "grey", "restarts"],
)
def test_the_upper_rows_are_those_of_the_whole(options):
    data = encoded(**options)
    whole = pixels(data)
    for bottom in range(1, 102):
        upper = pixels(without_rows_below(data, bottom, MANY))
        assert bottom <= len(upper) <= bottom + 8
        np.testing.assert_array_equal(upper[:bottom], whole[:bottom])


def test_what_does_not_stand_row_by_row_stays():
    progressive = encoded(progressive=True)
    assert without_rows_below(progressive, 5, MANY) is progressive
    data = encoded()
    assert without_rows_below(data, 5, 131 * 101 - 1) is data
    assert without_rows_below(data, 101, MANY) is data and without_rows_below(data[:40], 5, MANY) == data[:40]
    scan = data.index(b"\xff\xda")
    of_one_band = data[: scan + 4] + b"\x01" + data[scan + 5 :]
    assert without_rows_below(of_one_band, 5, MANY) is of_one_band


def test_a_window_of_a_large_jpeg(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded())
    whole = read_image(path)[0]
    monkeypatch.setattr(pictures, "_SMALL", 6000)
    shorter = []
    monkeypatch.setattr(
        pictures, "without_rows_below", lambda *args: shorter.append(without_rows_below(*args)) or shorter[-1]
    )
    for window in (Window(0, 0, 1, 1), Window(20, 30, 41, 50), Window(60, 90, 41, 41), None):
        part = whole if window is None else whole[:, window.top :, window.left :][:, : window[2], : window[3]]
        np.testing.assert_array_equal(read_image(path, window)[0], part)
    assert [len(pixels(data)) for data in shorter] == [9, 69, 101]
    monkeypatch.setattr(pictures, "MOST_PIXELS", 131 * 101 - 1)
    assert pictures.read_picture(path, Window(0, 0, 1, 1)) is None, "GDAL reads every window of it"
    with pytest.raises(ValueError, match="does not lie inside"):
        read_image(path, Window(90, 0, 12, 5))
