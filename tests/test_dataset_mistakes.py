"""The doctor finds every mistake, in a small data set for each."""

import re
import shutil

import numpy as np
import pytest
from rasterio.transform import from_origin

from tests.doctor_helpers import examined, label, noise, relabel
from tests.tiny_dataset import write_dataset, write_list, write_raster
from utils.data.layout import scan_dataset


def place(root, name, left, crs="EPSG:32633", pixel=10):
    transform = from_origin(500000 + left * pixel, 5000000, pixel, pixel)
    write_raster(root / "images" / f"{name}.tif", noise(), crs=crs, transform=transform)


def unreadable(root):
    (root / "images" / "t0.tif").write_bytes(b"II*\0nonsense")
    (root / "labels" / "v0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "images" / "t1.tif").write_bytes((root / "images" / "t1.tif").read_bytes()[:700])
    return {
        "unreadable image": ("error", "2 images .*t0.tif.*t1.tif"),
        "unreadable label": ("error", "v0.png"),
    }


def damaged_in_the_middle(root):
    path = root / "images" / "t0.tif"
    options = {"compress": "deflate", "blockysize": 16}
    data = write_raster(path, noise(64), **options).read_bytes()
    write_raster(root / "labels" / "t0.png", np.resize(label(), (64, 64)))
    # Four strips of about 5,300 bytes, of which the last is whole: the scan of training reads that one.
    path.write_bytes(data[:6000] + b"\xff" * 9000 + data[15000:])
    scan_dataset(root, progress=False)
    return {"unreadable image": ("error", "images/t0.tif")}


def missing(root):
    (root / "images" / "t0.tif").unlink()
    (root / "labels" / "v1.png").unlink()
    write_raster(root / "images" / "t1.png", noise(dtype=np.uint8, most=255))
    return {
        "image missing": ("error", r"1 names without an image: images/t0 \(train.txt\)"),
        "label missing": ("error", r"labels/v1 \(val.txt\)"),
        "several files": ("error", r"t1.png and t1.tif"),
    }


def label_size_and_kind(root):
    write_raster(root / "labels" / "t0.png", np.zeros((8, 16), np.uint8))
    (root / "labels" / "t1.png").unlink()
    write_raster(root / "labels" / "t1.jpg", label())
    (root / "labels" / "v1.png").unlink()
    write_raster(root / "labels" / "v1.tif", np.zeros((2, 16, 16), np.uint8))
    return {
        "label size": ("error", r"labels/t0.png \(8 x 16, its image 16 x 16\)"),
        "JPEG label": ("error", "labels/t1.jpg"),
        "label bands": ("error", r"v1.tif \(2 bands of uint8\)"),
    }


def value_out_of_range(root):
    (root / "classes.json").write_text('{"num_classes": 3}')
    wrong = label()
    wrong[0, :5] = 7
    write_raster(root / "labels" / "t1.png", wrong)
    write_raster(root / "labels" / "v1.png", label((0, 9)))
    return {"label value": ("error", r"2 labels.*t1.png \(7 in 5 pixels; .*v1.png \(9 in 128 pixels")}


def zero_and_255_ignored(root):
    (root / "classes.json").write_text('{"names": ["land", "water"]}')
    relabel(root, (0, 255))
    return {
        "labels 0 and 255": ("error", "5 labels .*water has no pixel at all"),
        "one class": ("error", "land"),
    }


def some_masks_of_255(root):
    relabel(root, (0, 1))
    write_raster(root / "labels" / "t1.png", label((0, 255)))
    return {"labels 0 and 255": ("warning", r"1 labels .*other labels hold 1: labels/t1.png")}


def counted_from_one(root):
    relabel(root, (1, 2, 3))
    return {"labels from 1": ("warning", r"1\.\.3 and never 0.*0=ignore,1=0,2=1,3=2")}


def class_missing_in_train(root):
    relabel(root, (0, 1), "t")
    relabel(root, (1, 2), "v")
    return {
        "class not in train": ("warning", r"1 of 3 classes \(class_2\) never occur in train, but in val"),
        "class not in split": ("note", r"\(class_0\) never occur in val"),
    }


def one_class(root):
    relabel(root, (1,), "t")
    return {"one class": ("error", "every labelled pixel of train is class_1")}


def uneven(root):
    for path in (root / "labels").iterdir():
        mask = np.zeros((64, 64), np.uint8)
        mask[0, :2] = 1
        write_raster(path, mask)
        write_raster(root / "images" / f"{path.stem}.tif", noise(64))
    return {"uneven classes": ("note", r"class_0 100.0 %, class_1 0.049 %")}


def blank_labels(root):
    write_raster(root / "labels" / "t1.png", label((255,)))
    return {"blank labels": ("warning", "1 of 3 labels of train.*labels/t1.png")}


def split_without_labels(root):
    relabel(root, (255,), "v")
    return {"nothing labelled": ("error", "val.txt")}


def same_image_in_two_splits(root):
    write_list(root, "val", ["v0", "v1", "t1"])
    write_list(root, "train", ["t0", "t1", "t2", "t0"])
    return {
        "image in two splits": ("error", "1 images are in both train and val: images/t1.tif"),
        "image twice": ("warning", "images/t0.tif"),
    }


def copies(root):
    shutil.copy(root / "images" / "t0.tif", root / "images" / "v1.tif")
    image = noise()
    write_raster(root / "images" / "t1.tif", image)
    write_raster(root / "images" / "t2.tif", image, compress="lzw")
    write_raster(root / "labels" / "t2.png", label((0, 1, 1)))
    return {
        "copies in two splits": ("error", r"1 images of val .*images/v1.tif \(as t0.tif\)"),
        "copies in a split": ("warning", r"t2.tif \(as t1.tif, but with another label\)"),
    }


def places(root):
    for name, left in (("t0", 0), ("t1", 16), ("t2", 100), ("v0", 24), ("v1", 200)):
        place(root, name, left)
    return {"places in two splits": ("warning", r"1 of 2 images of val .*25 % .*v0.tif \(50 % of its area\)")}


def references(root):
    place(root, "t0", 0)
    place(root, "t1", 100, pixel=30)
    place(root, "v0", 0, crs="EPSG:4326", pixel=0.0001)
    return {
        "CRS": ("warning", "3 coordinate reference systems"),
        "pixel size": ("warning", "10 metre.*30 metre"),
    }


def misplaced_label(root):
    where = {"crs": "EPSG:32633", "transform": from_origin(500030, 5000000, 10, 10)}
    place(root, "t0", 0)
    (root / "labels" / "t0.png").unlink()
    write_raster(root / "labels" / "t0.tif", label(), **where)
    return {"label place": ("error", r"labels/t0.tif \(up to 3 pixels beside\)")}


def empty_images(root):
    write_raster(root / "images" / "t0.tif", np.zeros((3, 16, 16), np.uint16))
    write_raster(root / "images" / "t1.tif", np.zeros((3, 16, 16), np.uint16), nodata=0)
    nearly = np.zeros((3, 16, 16), np.uint16)
    nearly[:, 0, :3] = (5, 6, 7)
    write_raster(root / "images" / "v0.tif", nearly, nodata=0)
    return {
        "constant image": ("warning", r"1 of 3 images of train .*t0.tif \(0\)"),
        "no data": ("warning", "1 of 3 images of train .*t1.tif"),
        "nearly no data": ("warning", r"v0.tif \(1.2 % valid\)"),
    }


def dtypes_scales_and_nan(root):
    image = noise().astype(np.float32) / 4000
    image[1, :4] = np.nan
    write_raster(root / "images" / "t0.tif", image)
    return {
        "dtypes": ("warning", "uint16 in 4, float32 in 1"),
        "NaN": ("note", r"t0.tif \(25 %\)"),
        "scale": ("warning", "t0.tif"),
    }


def bands(root):
    write_raster(root / "images" / "t0.tif", noise(bands=2))
    image = noise()
    for name in ("t1", "t2"):
        image[2] = 7
        write_raster(
            root / "images" / f"{name}.tif", image + (name == "t2") * np.array([1, 1, 0])[:, None, None]
        )
    return {"bands": ("error", r"t0.tif \(2 instead of 3\)"), "constant band": ("note", "band_3")}


def colours(root):
    for path in (root / "labels").iterdir():
        write_raster(path, noise(dtype=np.uint8, most=255))
    return {"label colours": ("error", "colours in all")}


MISTAKES = (
    *(unreadable, damaged_in_the_middle, missing, label_size_and_kind, value_out_of_range),
    *(zero_and_255_ignored, some_masks_of_255, counted_from_one, class_missing_in_train, one_class, uneven),
    *(blank_labels, split_without_labels, same_image_in_two_splits, copies, places, references),
    *(misplaced_label, empty_images, dtypes_scales_and_nan, bands, colours),
)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_mistakes_are_found(tmp_path, mistake):
    expected = mistake(write_dataset(tmp_path))
    found = examined(tmp_path)
    for kind, (severity, pattern) in expected.items():
        assert kind in found, found
        assert found[kind][0] == severity and re.search(pattern, found[kind][1]), found[kind]
