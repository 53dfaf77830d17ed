"""Layouts of any data set: folders and lists of pairs, what is held back, and what is refused."""

import json

import numpy as np
import pytest
from rasterio.transform import from_origin

from nets.errors import UserError
from tests.helpers import shared_data
from tests.layout_helpers import pair, scan_dataset, sizes
from tests.tiny_dataset import write_dataset, write_list, write_raster
from utils.data.labels import unpack_color
from utils.data.layouts import FORMATS
from utils.dataset_flags import FORMATS as FLAG_FORMATS


def test_the_flag_knows_every_reader():
    assert sorted(FLAG_FORMATS) == sorted(FORMATS)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("img_dir/{}", "ann_dir/{}"),
        ("images/{}", "masks/{}"),
        ("images/{}", "labels/{}"),
        ("images/{}", "annotations/{}"),
        ("{}/images", "{}/masks"),
        ("{}/img", "{}/gt"),
        ("{}", "{}_labels"),
        ("{}", "{}annot"),
    ],
)
@pytest.mark.parametrize("spelling", [("train", "val"), ("training", "validation"), ("Train", "Valid")])
def test_folders(tmp_path, images, labels, spelling):
    for split in spelling:
        for name in ("a", "sub/b"):
            pair(
                tmp_path / images.format(split) / f"{name}.png",
                tmp_path / labels.format(split) / f"{name}.png",
            )
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 2, "val": 2} and "(folders)" in info.found
    assert [sample.name for sample in info.splits["val"]] == ["a", "sub/b"]
    assert scan_dataset(tmp_path, ("val",), format="folders").splits == {"val": info.splits["val"]}


def test_names_with_words_for_their_role(tmp_path):
    for number in range(3):
        pair(tmp_path / f"images/t_{number}_sat.png", tmp_path / f"masks/t_{number}_mask.png")
    write_raster(tmp_path / "images/t_9_sat.png", np.zeros((3, 16, 16), np.uint8))
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 2, "val": 1}
    assert "1 images have no label and are left out" in info.notices[0] and "t_9_sat" in info.notices[0]
    assert any("1 of 3 training images are held back" in notice for notice in info.notices)


def test_images_and_masks_in_one_folder(tmp_path):
    colors = "name,r,g,b\nurban,0,255,255\nunknown,0,0,0\nwater,0,0,255\n"
    (tmp_path / "class_dict.csv").write_text(colors)
    for name in ("1", "2"):
        images = tmp_path / "train"
        pair(images / f"{name}_sat.jpg", images / f"{name}_mask.png", colors=[(0, 255, 255), (0, 0, 255)])
    write_raster(tmp_path / "valid" / "7_sat.jpg", np.zeros((3, 16, 16), np.uint8))
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1}
    assert info.classes.names == ("urban", "unknown", "water") and info.classes.colors[0] == (0, 255, 255)


def test_folders_that_do_not_match(tmp_path):
    pair(tmp_path / "images/a.png", tmp_path / "masks/b.png")
    with pytest.raises(
        UserError, match=r"no image of .*images has a label of the same name.*1 images, 1 labels"
    ):
        scan_dataset(tmp_path)
    pair(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    pair(tmp_path / "images/b.png", tmp_path / "masks/a.tif")
    with pytest.raises(UserError, match=r"the label of 'a' may be a\.png and a\.tif"):
        scan_dataset(tmp_path)


def test_csv_of_pairs(tmp_path):
    for name in ("a", "b", "c"):
        pair(tmp_path / f"x/{name}.png", tmp_path / f"y/{name}.png")
    (tmp_path / "train.csv").write_text("\ufeffimage,label\r\nx/a.png,y/a.png\r\nx/b.png,y/b.png\r\n")
    (tmp_path / "valid.csv").write_text("id;mask;image\n1;y/c.png;x/c.png\n")
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 2, "val": 1} and info.splits["val"][0].name == "x/c"
    (tmp_path / "train.csv").unlink()
    (tmp_path / "valid.csv").unlink()
    table = "image_path,mask_path,split\nx/a.png,y/a.png,train\nx/b.png,y/b.png,test\nx/c.png,y/c.png,valid\n"
    (tmp_path / "all.csv").write_text(table)
    assert sizes(scan_dataset(tmp_path)) == {"train": 1, "val": 1, "test": 1}
    assert sizes(scan_dataset(tmp_path / "all.csv")) == {"train": 1, "val": 1, "test": 1}
    (tmp_path / "all.csv").write_text(table.replace("y/b.png", "y/missing.png"))
    with pytest.raises(UserError, match=r"all\.csv, line 2: y/missing\.png is not there"):
        scan_dataset(tmp_path)
    (tmp_path / "all.csv").write_text("image,label\nx/a.png\n")
    with pytest.raises(UserError, match=r"line 2: an image and a label are wanted"):
        scan_dataset(tmp_path)


def test_text_list_of_two_paths(tmp_path):
    for name in ("a", "b"):
        pair(tmp_path / f"x/{name}.png", tmp_path / f"y/{name}.png")
    (tmp_path / "train.txt").write_text("/elsewhere/x/a.png /elsewhere/y/a.png\n")
    (tmp_path / "val.txt").write_text("x/b.png\ty/b.png\n")
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and "(csv)" in info.found


def test_a_format_that_does_not_fit(tmp_path):
    write_dataset(tmp_path)
    with pytest.raises(UserError, match=r"not laid out as --DATASET_FORMAT voc \(JPEGImages"):
        scan_dataset(tmp_path, format="voc")


def test_second_set_of_labels(tmp_path):
    write_dataset(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        write_raster(tmp_path / "cover" / path.name, np.full((16, 16), 1, np.uint8))
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"], "label_dir": "labels"}))
    content = {"names": ["grass", "wood"], "label_dir": "cover", "bands": ["r", "g", "b"]}
    (tmp_path / "classes_cover.json").write_text(json.dumps(content))
    assert scan_dataset(tmp_path).classes.names == ("a", "b", "c")
    info = scan_dataset(tmp_path, label_dir="cover")
    assert info.classes.names == ("grass", "wood") and info.band_names == ("r", "g", "b")
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["grass", "wood"], "label_dir": "cover"}))
    assert scan_dataset(tmp_path).splits["train"][0].label.parent.name == "cover"
    with pytest.raises(UserError, match=r"--LABEL_DIR cower: .* has no such folder"):
        scan_dataset(tmp_path, label_dir="cower")


def test_tiles_are_held_back_by_seed_and_name_alone(tmp_path):
    write_dataset(tmp_path, tiles=20)
    (tmp_path / "annotations" / "val.txt").unlink()
    info = scan_dataset(tmp_path, seed=1)
    held = {sample.name for sample in info.splits["val"]}
    assert sizes(info) == {"train": 18, "val": 2} and "2 of 20" in info.notices[0]
    write_list(tmp_path, "train", [f"t{i}" for i in reversed(range(20))])
    assert {sample.name for sample in scan_dataset(tmp_path, ("val",), seed=1).splits["val"]} == held
    train = scan_dataset(tmp_path, ("train",), seed=1).splits["train"]
    assert not held & {sample.name for sample in train} and len(train) == 18
    others = [
        {s.name for s in scan_dataset(tmp_path, ("val",), seed=seed).splits["val"]} for seed in range(4)
    ]
    assert any(other != held for other in others)
    assert sizes(scan_dataset(tmp_path, ("val",), val_fraction=0.5)) == {"val": 10}
    assert sizes(scan_dataset(tmp_path, ("all",))) == {"all": 20}


def test_georeference_of_both(tmp_path):
    write_dataset(tmp_path, values=(0, 1))
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 10, 10)}
    for path in (tmp_path / "images").iterdir():
        write_raster(path, np.zeros((3, 16, 16), np.uint8), **place)
    label = np.eye(16, dtype=np.uint8)
    (tmp_path / "labels" / "v1.png").unlink()

    def check(**other):
        write_raster(tmp_path / "labels" / "v1.tif", label, **{**place, **other})
        return scan_dataset(tmp_path)

    assert check().has_crs
    check(transform=from_origin(500000.4, 5000000, 10, 10))
    with pytest.raises(UserError, match=r"v1\.tif is in EPSG:32634, its image .* in EPSG:32633"):
        check(crs="EPSG:32634")
    with pytest.raises(UserError, match=r"v1\.tif lies up to 3 pixels beside its image"):
        check(transform=from_origin(500030, 5000000, 10, 10))
    with pytest.raises(UserError, match=r"lies up to 16 pixels beside"):
        check(transform=from_origin(500000, 5000000, 20, 20))


def test_real_label_sets_of_one_folder():
    root = shared_data("water8")
    info = scan_dataset(root, ("val",), label_dir="labels_lulc")
    assert info.classes.num_classes == 10 and info.classes.names[7] == "water"


def test_colors_in_messages_are_written_as_users_write_them(tmp_path):
    for split in ("train", "val"):
        pair(
            tmp_path / "images" / split / "a.png",
            tmp_path / "masks" / split / "a.png",
            colors=[(9, 0, 0), (0, 99, 0)],
        )
    info = scan_dataset(tmp_path)
    assert info.classes.names == ("#006300", "#090000") and "2 colours" in info.notices[0]
    assert info.classes.colors == tuple(map(unpack_color, (0x6300, 0x90000)))
