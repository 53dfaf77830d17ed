"""Every layout on a tiny tree, and the real excerpts."""

import json

import numpy as np
import pytest
from rasterio.transform import from_origin

from nets.errors import UserError
from tests.helpers import shared_data
from tests.tiny_dataset import write_dataset, write_list, write_raster
from utils.data.dataset import SegmentationDataset
from utils.data.labels import unpack_color
from utils.data.layout import Reading
from utils.data.layout import scan_dataset as scan
from utils.data.layouts import FORMATS
from utils.dataset_flags import FORMATS as FLAG_FORMATS

RNG = np.random.default_rng(3)


def scan_dataset(root, splits=None, **reading):
    return scan(root, progress=False, splits=splits, reading=Reading(**reading))


def pair(image, label, values=(0, 1), size=16, colors=None):
    """Write an image and a label whose columns hold the values, or the colours."""
    write_raster(image, RNG.integers(0, 255, (3, size, size)).astype(np.uint8))
    if colors is not None:
        columns = np.array(colors, dtype=np.uint8)[np.arange(size) % len(colors)]
        write_raster(label, np.broadcast_to(columns.T[:, None], (3, size, size)).copy())
    else:
        row = np.array(values)[np.arange(size) % len(values)]
        write_raster(label, np.broadcast_to(row, (size, size)).astype(np.uint8))


def sizes(info):
    return {split: len(samples) for split, samples in info.splits.items()}


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


def voc_tree(root, names, folder="SegmentationClass"):
    base = root / "VOCdevkit" / "VOC2012"
    for name in names:
        pair(base / "JPEGImages" / f"{name}.jpg", base / folder / f"{name}.png", (0, 15, 255))
    return base


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_voc_and_its_augmented_list(tmp_path):
    base = voc_tree(tmp_path, ["a", "b", "c"])
    lists = base / "ImageSets" / "Segmentation"
    for name, lines in (("train", ["a"]), ("val", ["c"]), ("trainval", ["a", "c"])):
        write_lines(lists / f"{name}.txt", lines)
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and info.classes.names[15] == "person"
    assert info.classes.colors[15] == (192, 128, 128) and info.classes.ignored == (255,)
    assert sizes(scan_dataset(tmp_path, ("trainval",))) == {"trainval": 2}
    with pytest.raises(UserError, match=r"--SPLIT test is given.*has train, trainval, val"):
        scan_dataset(tmp_path, ("test",))
    voc_tree(tmp_path, ["b", "c"], "SegmentationClassAug")
    write_lines(lists / "trainaug.txt", ["a", "b"])
    info = scan_dataset(tmp_path)
    assert [sample.label.parent.name for sample in info.splits["train"]] == [
        "SegmentationClass",
        "SegmentationClassAug",
    ]
    assert sizes(scan_dataset(tmp_path, label_dir="SegmentationClass")) == {"train": 1, "val": 1}


def test_ade20k(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    pair(base / "images/training/ADE_train_1.jpg", base / "annotations/training/ADE_train_1.png", (0, 1, 150))
    pair(base / "images/validation/ADE_val_1.jpg", base / "annotations/validation/ADE_val_1.png", (0, 2))
    info = scan_dataset(tmp_path)
    assert info.classes.names[0] == "class_0" and info.classes.ignored == (0,)
    assert (
        info.label_counts["train"][[0, 149]].tolist() == [80, 80] and info.label_counts["train"].sum() == 160
    )
    with pytest.raises(UserError, match="has one set of labels"):
        scan_dataset(tmp_path, label_dir="annotations")


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, kind):
    values = {"labelIds": (0, 7, 26, 33, 34), "labelTrainIds": (0, 13, 18, 255)}[kind]
    values = tuple(value for value in values if value != 34)
    for split, town in (("train", "ulm"), ("val", "bonn"), ("test", "rome")):
        stem = f"{town}_000001_000019"
        label = tmp_path / "gtFine" / split / town / f"{stem}_gtFine_{kind}.png"
        pair(tmp_path / "leftImg8bit" / split / town / f"{stem}_leftImg8bit.png", label, values)
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and info.classes.num_classes == 19
    assert np.flatnonzero(info.label_counts["val"]).tolist() == [0, 13, 18]
    assert info.classes.names[13] == "car" and info.splits["val"][0].name == "bonn/bonn_000001_000019"
    assert sizes(scan_dataset(tmp_path, ("test",))) == {"test": 1}


def test_camvid(tmp_path):
    base = tmp_path / "CamVid"
    for split in ("train", "val", "test"):
        pair(base / split / f"{split}1.png", base / f"{split}annot" / f"{split}1.png", (0, 10, 11))
        line = f"/SegNet/CamVid/{split}/{split}1.png /SegNet/CamVid/{split}annot/{split}1.png"
        write_lines(base / f"{split}.txt", [line])
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1, "test": 1} and info.classes.names[10] == "bicyclist"
    assert info.classes.ignored == (11,) and info.splits["val"][0].name == "val/val1"


def test_loveda(tmp_path):
    for split in ("Train", "Val"):
        for place in ("Rural", "Urban"):
            folder = tmp_path / split / place
            pair(folder / "images_png/1.png", folder / "masks_png/1.png", (0, 1, 7))
    write_raster(tmp_path / "Test/Rural/images_png/9.png", np.zeros((3, 16, 16), np.uint8))
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 2, "val": 2} and info.classes.table[7] == 6
    assert {sample.name for sample in info.splits["val"]} == {"Rural/1", "Urban/1"}


ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


def test_potsdam(tmp_path):
    for tile in ("2_10", "7_7", "2_13"):
        label = tmp_path / "5_Labels_all" / f"top_potsdam_{tile}_label.tif"
        pair(tmp_path / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif", label, colors=[*ISPRS, (252, 255, 0)])
        image = RNG.integers(0, 255, (4, 16, 16)).astype(np.uint8)
        write_raster(
            tmp_path / "4_Ortho_RGBIR" / f"top_potsdam_{tile}_RGBIR.tif", image, photometric="MINISBLACK"
        )
    info = scan_dataset(tmp_path)
    # 2_13 was the contest's test; one of the two others is held back
    assert sizes(info) == {"train": 1, "val": 1, "test": 1} and info.bands == 3
    assert info.splits["test"][0].name == "top_potsdam_2_13_RGB"
    assert info.label_counts["test"].tolist() == [48, 48, 32, 32, 64, 32]
    mask = SegmentationDataset(info.splits["test"], info.classes)[0]["mask"]
    assert mask[0, :7].tolist() == [0, 1, 2, 3, 4, 5, 4]
    assert scan_dataset(tmp_path / "4_Ortho_RGBIR").bands == 4
    without = scan_dataset(tmp_path, label_map="#ff0000=ignore").classes
    assert without.names == ("impervious surfaces", "building", "low vegetation", "tree", "car")


def test_vaihingen(tmp_path):
    root = tmp_path / "ISPRS_semantic_labeling_Vaihingen"
    for area in (1, 3, 2):
        name = f"top_mosaic_09cm_area{area}.tif"
        label = root / "gts_for_participants" / name
        pair(root / "top" / name, label, colors=[*ISPRS, (0, 0, 0)])
    (root / "gts_for_participants" / "top_mosaic_09cm_area2.tif").unlink()
    info = scan_dataset(tmp_path)
    assert sizes(info) == {"train": 1, "val": 1} and "1 tiles of" in info.notices[0]
    assert info.classes.ignored == (0,)


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


@pytest.mark.parametrize(
    ("folder", "name", "expected", "classes"),
    [
        ("voc", "voc", {"train": 2, "val": 1}, 21),
        ("ade20k", "ade20k", {"train": 1, "val": 2}, 150),
        ("cityscapes", "cityscapes", {"train": 3, "val": 2}, 19),
        ("camvid-segnet", "camvid", {"train": 2, "val": 1, "test": 1}, 11),
        ("loveda", "loveda", {"train": 2, "val": 1}, 7),
    ],
)
def test_real_excerpts(folder, name, expected, classes):
    info = scan_dataset(shared_data("formats", folder))
    assert sizes(info) == expected and info.classes.num_classes == classes and f"({name})" in info.found
    assert info.splits == scan_dataset(shared_data("formats", folder), format=name).splits


def test_real_names_of_ade20k():
    names = scan_dataset(shared_data("formats", "ade20k")).classes.names
    assert names[:4] == ("wall", "building", "sky", "floor") and len(set(names)) == 150


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
