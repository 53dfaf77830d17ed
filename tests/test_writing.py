"""Maps read back as they were written, with everything QGIS shows; nothing half-written stays."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from utils.files import replacing
from utils.inference.scores import Scores
from utils.inference.writing import ClassMapWriter, ScoresWriter, write_class_png, write_png

NAMES = ("clean ice", "rock & debris", "Gewässer")
COLORS = ((230, 240, 250), (128, 128, 128), (0, 90, 200))
WKT = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(10.0, 0.0, 465181.5, 0.0, -10.0, 5080254.25)


def class_map(height: int = 300, width: int = 270) -> np.ndarray:
    classes = np.random.default_rng(0).integers(0, 3, (height, width)).astype(np.uint8)
    classes[:20] = 255
    return classes


def write_map(path, classes, pieces, **more) -> None:
    frame = {"height": len(classes), "width": classes.shape[1], "names": NAMES, "colors": COLORS, **more}
    with ClassMapWriter(path, **frame) as writer:
        top = 0
        for rows in pieces:
            writer.write(top, classes[top : top + rows])
            top += rows


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "transform", [NORTH_UP, Affine(8.0, 6.0, 465181.5, 6.0, -8.0, 5080254.25), Affine(1, 0, 5, 0, 1, 7)]
)
def test_class_map_reads_back(tmp_path, transform):
    classes = class_map()
    write_map(tmp_path / "a.tif", classes, (1, 254, 2, 43), crs=WKT, transform=transform)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert np.array_equal(source.read(1), classes)
        assert source.crs == CRS.from_epsg(32633)
        assert source.transform.almost_equals(transform)
        assert source.nodata == 255
        assert source.block_shapes == [(256, 256)]
        assert source.profile["compress"] == "deflate"
        assert source.colorinterp == (ColorInterp.palette,)
        table = source.colormap(1)
        assert [table[index][:3] for index in range(3)] == list(COLORS)
        assert source.tags(1)["CLASS_1"] == "rock & debris"
    assert left(tmp_path) == ["a.tif", "a.tif.aux.xml"]


def test_names_are_gdal_categories_and_the_rest_is_inside_the_file(tmp_path):
    write_map(tmp_path / "a.tif", class_map(), (300,), crs=WKT, transform=NORTH_UP)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    assert "<Category>rock &amp; debris</Category>" in (tmp_path / "a.vrt").read_text(encoding="utf-8")
    assert "<Category>Gewässer</Category>" in (tmp_path / "a.vrt").read_text(encoding="utf-8")
    (tmp_path / "a.tif.aux.xml").unlink()
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.colormap(1)[2][:3] == COLORS[2]
        assert source.tags(1)["CLASS_2"] == "Gewässer"


def test_plain_tiff_without_crs(tmp_path):
    write_map(tmp_path / "a.tif", class_map(40, 30), (40,))
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.crs is None
        assert source.transform.is_identity
        assert np.array_equal(source.read(1), class_map(40, 30))


def test_many_classes_take_16_bit(tmp_path):
    names, colors = [f"c{i}" for i in range(300)], [(i % 256, 0, 0) for i in range(300)]
    classes = np.array([[0, 299, 65535]], np.uint16)
    with ClassMapWriter(tmp_path / "a.tif", height=1, width=3, names=names, colors=colors) as writer:
        writer.write(0, classes)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.nodata == 65535
        assert source.read(1).tolist() == classes.tolist()
        assert source.colormap(1)[299][:3] == (299 % 256, 0, 0)
    write_class_png(tmp_path / "a.png", classes, colors)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), classes)


def test_scores_read_back(tmp_path):
    scores = np.random.default_rng(0).random((3, 300, 40)).astype(np.float32)
    scores[:, 5] = np.nan
    frame = {"height": 300, "width": 40, "names": NAMES, "crs": WKT, "transform": NORTH_UP}
    with ScoresWriter(tmp_path / "s.tif", scores=Scores(), **frame) as writer:
        for top in range(0, 300, 75):
            writer.write(top, scores[:, top : top + 75])
    with rasterio.open(tmp_path / "s.tif") as source:
        assert np.array_equal(source.read(), scores, equal_nan=True)
        assert source.descriptions == NAMES
        assert np.isnan(source.nodata)
        assert source.transform == NORTH_UP


def test_an_error_leaves_nothing_and_keeps_the_earlier_file(tmp_path):
    write_map(tmp_path / "a.tif", class_map(), (300,))
    before = (tmp_path / "a.tif").read_bytes()
    frame = {"height": 300, "width": 270, "names": NAMES, "colors": COLORS}
    with (
        pytest.raises(RuntimeError, match="power cut"),
        ClassMapWriter(tmp_path / "a.tif", **frame) as writer,
    ):
        writer.write(0, class_map()[:280] * 0)
        assert "a.tif.part" in left(tmp_path)
        raise RuntimeError("power cut")
    assert (tmp_path / "a.tif").read_bytes() == before
    assert left(tmp_path) == ["a.tif", "a.tif.aux.xml"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["tif", "cog", "png", "checkpoint"])
def test_the_last_bytes_do_not_get_lost_on_a_full_disk(tmp_path, kind):
    """GDAL writes them when it closes a file, and says nothing if it cannot."""
    final = tmp_path / ("a.png" if kind == "png" else "a.tif")
    more = {"cog": kind == "cog", "png": final if kind == "png" else None}
    write_map(tmp_path / "a.tif", class_map(), (300,), **more)
    enough = final.stat().st_size
    frame = {"height": 300, "width": 270, "names": NAMES, "colors": COLORS}
    writer = ClassMapWriter(tmp_path / "a.tif", **frame, **more)
    writer.start()
    try:
        writer.write(0, class_map())
        step = {"tif": writer.close, "checkpoint": writer.checkpoint}.get(kind, writer.finish)
        if step == writer.finish:
            writer.close()
        with full_disk(enough - 500), pytest.raises(OSError, match="No space left"):
            step()
    finally:
        writer.discard()
    assert final.stat().st_size == enough
    assert not list(tmp_path.glob("*.part*"))


def test_four_classes_are_no_picture_with_alpha(tmp_path):
    frame = {"height": 30, "width": 40, "names": tuple("abcd")}
    for cog in (False, True):
        path = tmp_path / f"{cog}.tif"
        with ScoresWriter(path, scores=Scores(dtype="uint8"), cog=cog, crs=WKT, **frame) as writer:
            writer.write(0, np.zeros((4, 30, 40), np.uint8))
        with rasterio.open(path) as source:
            assert not {ColorInterp.red, ColorInterp.alpha} & set(source.colorinterp)


def test_what_a_killed_run_left_does_not_stay(tmp_path):
    for name in ("a.tif.part", "a.tif.part.ovr", "a.tif.cog.part"):
        (tmp_path / name).write_bytes(b"half of it")
    write_map(tmp_path / "a.tif", class_map(), (300,))
    assert left(tmp_path) == ["a.tif", "a.tif.aux.xml"]


def test_missing_and_misplaced_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="300 rows; only 299 were given"):
        write_map(tmp_path / "a.tif", class_map(), (299,))
    with (
        pytest.raises(ValueError, match="rows from 7 on are given; rows from 5 are due"),
        ScoresWriter(tmp_path / "s.tif", scores=Scores(), height=9, width=2, names=("a",)) as writer,
    ):
        writer.write(0, np.zeros((1, 5, 2), np.float32))
        writer.write(7, np.zeros((1, 2, 2), np.float32))
    assert left(tmp_path) == []


def test_class_png_has_palette_and_grey_no_data(tmp_path):
    classes = class_map(30, 20)
    write_class_png(tmp_path / "a.png", classes, COLORS)
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "P"
    assert np.array_equal(np.array(picture), classes)
    shown = np.array(picture.convert("RGB"))
    assert tuple(shown[0, 0]) == (160, 160, 160)  # the second grey: a class has the first one
    assert tuple(shown[classes == 2][0]) == COLORS[2]


def test_png_and_replacing_leave_nothing_behind_on_failure(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "x") as part:
        part.write_text("half")
        raise RuntimeError
    assert left(tmp_path) == []
    write_png(tmp_path / "x.png", np.zeros((2, 3, 3), np.uint8))
    assert left(tmp_path) == ["x.png"]
