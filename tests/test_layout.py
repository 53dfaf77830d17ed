import json

import numpy as np
import pytest

from nets.errors import UserError
from tests.helpers import shared_data
from tests.tiny_dataset import write_dataset, write_list, write_raster
from utils.data.layout import read_layout
from utils.data.layout import scan_dataset as scan
from utils.data.raster import raster_info


def scan_dataset(root, **options):
    return scan(root, progress=False, **options)


def zeros(dtype="uint8", shape=(16, 16), value=0):
    return np.full(shape, value, dtype=dtype)


def test_plain_set(tmp_path):
    info = scan_dataset(write_dataset(tmp_path, values=(0, 1, 2, 255)))
    assert {split: len(samples) for split, samples in info.splits.items()} == {"train": 3, "val": 2}
    assert (info.bands, info.dtype, info.has_crs, info.smallest_tile) == (3, "uint16", False, (16, 16))
    assert info.classes.names == ("class_0", "class_1", "class_2")
    assert info.classes.ignored == (255, -1) and info.band_names == ("band_1", "band_2", "band_3")
    assert info.label_counts["train"].sum() == 3 * 256 * 6 / 8
    assert info.notices == ()


def test_shared_sets():
    info = scan_dataset(shared_data("camvid-small"), splits=("val",))
    assert info.classes.num_classes == 11 and info.classes.ignored == (11,)
    shares = 100 * info.label_counts["val"] / (101 * 240 * 180)
    assert shares.round(2).tolist()[:3] == [9.13, 25.86, 0.56]
    info = scan_dataset(shared_data("water8"))
    assert info.bands == 8 and info.classes.names == ("land", "water") and info.classes.ignored == ()
    assert scan_dataset(shared_data("s2-eopatch")).has_crs


def test_lists_names_and_extensions(tmp_path):
    for name in ("a/b", "S2.2019.tile", "plain", "CAPS"):
        write_raster(tmp_path / "images" / f"{name}.TIF", zeros())
        write_raster(tmp_path / "labels" / f"{name}.png", zeros())
    text = "\ufeffa/b\r\n\r\nS2.2019.tile \r\nplain.tif\r\n"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.txt").write_bytes(text.encode("utf-8"))
    write_list(tmp_path, "val", ["a\\b", "./CAPS.tif"])
    layout = read_layout(tmp_path)
    assert [entry.name for entry in layout["train"]] == ["a/b", "S2.2019.tile", "plain"]
    assert [entry.name for entry in layout["val"]] == ["a/b", "CAPS"]
    assert "both train and val" in scan_dataset(tmp_path).notices[0]


def test_two_files_of_one_name(tmp_path):
    write_dataset(tmp_path)
    write_raster(tmp_path / "images" / "t0.png", zeros())
    with pytest.raises(UserError, match=r"t0\.png and t0\.tif.*extension in the list"):
        read_layout(tmp_path)
    write_list(tmp_path, "train", ["t0.tif", "t1", "t2"])
    assert read_layout(tmp_path)["train"][0].image.name == "t0.tif"


def test_no_data_set(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"make demo(.|\n)*annotations/train\.txt") as error:
            read_layout(root)
        assert len(str(error.value).splitlines()) == 2
    write_dataset(tmp_path / "demo")
    with pytest.raises(UserError, match=r"--DATASET_PATH .*demo"):
        read_layout(tmp_path)


def test_splits(tmp_path):
    write_dataset(tmp_path)
    with pytest.raises(UserError, match=r"test\.txt does not exist"):
        read_layout(tmp_path, ("test",))
    write_list(tmp_path, "test", ["v1"])
    assert list(read_layout(tmp_path)) == ["train", "val", "test"]
    (tmp_path / "annotations" / "train.txt").unlink()
    assert list(scan_dataset(tmp_path, splits=("test",)).splits) == ["test"]
    with pytest.raises(UserError, match=r"train\.txt does not exist"):
        read_layout(tmp_path)


def break_missing_image(root):
    (root / "images" / "t1.tif").unlink()
    return r"no image 't1'"


def break_missing_label(root):
    (root / "labels" / "t1.png").unlink()
    return r"no label 't1'"


def break_empty_list(root):
    write_list(root, "val", ["", " "])
    return r"val\.txt is empty"


def break_encoding(root):
    (root / "annotations" / "val.txt").write_bytes(b"\xff\xfe\xff")
    return r"val\.txt cannot be read as UTF-8"


def break_label_size(root):
    write_raster(root / "labels" / "t1.png", zeros(shape=(8, 16)))
    return r"t1\.png has 8 x 16 .*t1\.tif has 16 x 16"


def break_band_count(root):
    write_raster(root / "images" / "v1.tif", zeros("uint16", (2, 16, 16)))
    return r"v1\.tif has 2 bands, .*t0\.tif has 3"


def break_value(root):
    (root / "classes.json").write_text('{"num_classes": 3, "ignore_index": null}')
    label = zeros()
    label[0, :5] = 7
    write_raster(root / "labels" / "v1.png", label)
    return r"v1\.png holds the label value 7 in 5 pixels; allowed are 0\.\.2"


def break_stray_value(root):
    label = zeros("uint16")
    label[0, :5] = 60000
    write_raster(root / "labels" / "v1.png", label)
    return r"v1\.png holds the label value 60000 in 5 pixels.*60001 classes"


def break_image_pixels(root):
    path = root / "images" / "v1.tif"
    noise = np.random.default_rng(0).integers(0, 255, (3, 16, 16)).astype(np.uint8)
    data = write_raster(path, noise, compress="deflate").read_bytes()
    path.write_bytes(data[:-300] + bytes(300))
    assert raster_info(path).bands == 3  # the header is whole
    return r"v1\.tif cannot be read"


def break_labels_all_ignored(root):
    for path in (root / "labels").glob("v*"):
        write_raster(path, zeros(value=255))
    return r"val\.txt: every label pixel is ignored"


@pytest.mark.parametrize("mistake", [f for n, f in sorted(globals().items()) if n.startswith("break_")])
def test_mistakes_are_named_in_one_line(tmp_path, mistake):
    message = mistake(write_dataset(tmp_path))
    with pytest.raises(UserError, match=message) as error:
        scan_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_number_of_bands_and_classes(tmp_path):
    write_dataset(tmp_path)
    with pytest.raises(UserError, match="4 bands were asked for"):
        scan_dataset(tmp_path, bands=4)
    with pytest.raises(UserError, match=r"label value 2 in .* allowed are 0, 1 and ignored"):
        scan_dataset(tmp_path, num_classes=2)
    assert scan_dataset(tmp_path, num_classes=5).classes.names[-1] == "class_4"
    content = {"names": ["x", "y", "z"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"2 classes were asked for, classes\.json names 3"):
        scan_dataset(tmp_path, num_classes=2)
    classes = scan_dataset(tmp_path, num_classes=4).classes
    assert classes.names == ("x", "y", "z", "class_3") and classes.colors[2] == (7, 8, 9)
    assert len(set(classes.colors)) == 4


def test_binary_set(tmp_path):
    info = scan_dataset(write_dataset(tmp_path, values=(0, 255)))
    assert info.classes.table == {0: 0, 255: 1} and info.classes.ignored == (-1,)
    assert "0 and 255" in info.notices[0]
    assert info.label_counts["val"].tolist() == [256, 256]
    assert scan_dataset(tmp_path, num_classes=3).classes.ignored == (255, -1)
    (tmp_path / "classes.json").write_text('{"num_classes": 2}')
    assert scan_dataset(tmp_path).classes.ignored == (255, -1)


def test_one_tile_with_another_value_makes_255_ignored_everywhere(tmp_path):
    write_dataset(tmp_path, values=(0, 255))
    write_raster(tmp_path / "labels" / "v1.png", zeros(value=1))
    assert scan_dataset(tmp_path).classes.table == {0: 0, 1: 1}


@pytest.mark.parametrize(("nodata", "is_class"), [(0, True), (1, True), (3, False), (9, False), (255, False)])
def test_nodata_of_labels(tmp_path, nodata, is_class):
    write_dataset(tmp_path, values=(0, 1))
    for path in (tmp_path / "labels").glob("*.png"):
        path.unlink()
        label = zeros()
        label[:, 8:] = 2
        label[0, 0] = nodata
        write_raster(path.with_suffix(".tif"), label, nodata=nodata)
    info = scan_dataset(tmp_path)
    assert info.classes.table == {0: 0, 1: 1, 2: 2}
    assert (nodata in info.classes.table) == is_class
    assert info.label_counts["val"].sum() == 2 * (256 if is_class else 255)


def test_classes_of_a_checkpoint(tmp_path):
    classes = scan_dataset(write_dataset(tmp_path / "one", values=(0, 255))).classes
    root = write_dataset(tmp_path / "two", values=(0, 1))
    with pytest.raises(UserError, match=r"value 1 in .* allowed are 0, 255"):
        scan_dataset(root, classes=classes)


def test_palette_of_the_labels_gives_the_colours(tmp_path):
    write_dataset(tmp_path, values=(0, 1))
    colormap = {0: (10, 20, 30), 1: (200, 0, 0)}
    label = np.eye(16, dtype=np.uint8)
    write_raster(tmp_path / "labels" / "t0.png", label, colormap=colormap)
    assert scan_dataset(tmp_path).classes.colors == ((10, 20, 30), (200, 0, 0))


def test_npy_with_more_bands_than_rows(tmp_path):
    write_list(tmp_path, "train", ["a"])
    write_list(tmp_path, "val", ["a"])
    write_raster(tmp_path / "images" / "a.npy", zeros(shape=(20, 12, 12)))
    write_raster(tmp_path / "labels" / "a.png", zeros(shape=(12, 12)))
    with pytest.raises(UserError, match=r"a\.npy .*outer axis of its shape \(20, 12, 12\)"):
        scan_dataset(tmp_path)


def test_mixed_dtypes_and_alpha_are_said(tmp_path):
    write_dataset(tmp_path)
    write_raster(tmp_path / "images" / "t1.tif", zeros("float32", (3, 16, 16)))
    (tmp_path / "images" / "t2.tif").unlink()
    write_raster(tmp_path / "images" / "t2.png", zeros("uint8", (4, 16, 16), 9))
    info = scan_dataset(tmp_path)
    text = " ".join(info.notices)
    assert "alpha" in text and "uint16 in 3, float32 in 1, uint8 in 1" in text and info.dtype == "float32"
