"""What label values and colours mean: --LABEL_MAP, colour masks, guesses and their limits."""

import json

import numpy as np
import pytest

from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.dataset import SegmentationDataset
from utils.data.label_map import Rule, parse_label_map
from utils.data.labels import Classes, pack_color
from utils.data.layout import Reading
from utils.data.layout import scan_dataset as scan
from utils.training.announce import labels_table

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def scan_dataset(root, label_map=None, **options):
    return scan(root, progress=False, reading=Reading(label_map=label_map), **options)


def color_set(root, colors, suffix=".png"):
    """Write a set whose labels hold the colours in equal stripes."""
    write_dataset(root)
    for path in (root / "labels").iterdir():
        path.unlink()
        columns = np.array(colors, dtype=np.uint8)[np.arange(16) * len(colors) // 16]
        write_raster(
            path.with_suffix(suffix), np.broadcast_to(columns.T[:, None], (len(colors[0]), 16, 16)).copy()
        )
    return root


def test_rules_from_text_and_files(tmp_path):
    rules = (
        Rule(0, False, None),
        Rule(1, False, 0),
        Rule(0xFF0000, True, "building"),
        Rule(None, False, None),
    )
    assert parse_label_map(" 0=ignore, 1=0,#FF0000=building,*=Ignore") == rules
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": None, "1": 0, "#ff0000": "building", "*": "ignore"}))
    assert parse_label_map(str(path)) == rules
    path = tmp_path / "map.csv"
    path.write_text("\ufeffname,r,g,b\nVoid,0,0,0\nroad,255,0,1\n")
    assert parse_label_map(str(path)) == (Rule(0, True, None), Rule(0xFF0001, True, "road"))
    path.write_text("value,class\n7,road\n-1,ignore\n")
    assert parse_label_map(str(path)) == (Rule(7, False, "road"), Rule(-1, False, None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rule"),
        ("1", "1= is no rule; write it like"),
        ("one=1", "one=1 is no rule"),
        ("#ff00=1", "#ff00=1 is no rule"),
        ("1=0,1=1", "says twice what 1 means"),
        ("missing.json", r"missing\.json cannot be read"),
    ],
)
def test_mistakes_in_rules(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_label_map(text)
    assert "\n" not in str(error.value)


def test_values_are_mapped(tmp_path):
    write_dataset(tmp_path, values=(0, 1, 2, 3))
    classes = scan_dataset(tmp_path, "0=ignore,1=water,2=land,3=land").classes
    assert classes.names == ("water", "land") and classes.table == {1: 0, 2: 1, 3: 1}
    assert classes.ignored == (255, -1, 0)
    assert scan_dataset(tmp_path, "1=1,*=0").classes.table == {1: 1, 0: 0, 2: 0, 3: 0}
    assert scan_dataset(tmp_path, "0=0,1=0,2=2,3=ignore").classes.names == ("class_0", "class_1", "class_2")
    with pytest.raises(
        UserError, match=r"holds the label value 3 in .* allowed are 0\.\.2 and ignored .*LABEL_MAP"
    ):
        scan_dataset(tmp_path, "0=0,1=1,2=2")
    with pytest.raises(UserError, match="ignores every value"):
        scan_dataset(tmp_path, "*=ignore")
    with pytest.raises(UserError, match="names #ff0000, but the labels hold numbers"):
        scan_dataset(tmp_path, "#ff0000=1")


def test_a_map_on_top_of_classes_json(tmp_path):
    write_dataset(tmp_path, values=(0, 1, 2, 7))
    content = {"names": ["a", "b", "c"], "palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    classes = scan_dataset(tmp_path, "7=B").classes
    assert classes.names == ("a", "b", "c") and classes.table == {0: 0, 1: 1, 2: 2, 7: 1}
    classes = scan_dataset(tmp_path, "7=d,1=ignore").classes
    assert classes.names == ("a", "c", "d") and classes.table == {0: 0, 2: 1, 7: 2}
    assert classes.colors[:2] == ((1, 1, 1), (3, 3, 3)) and len(set(classes.colors)) == 3


def test_palette_labels_may_be_named_by_colour(tmp_path):
    write_dataset(tmp_path, values=(0, 1))
    for path in (tmp_path / "labels").iterdir():
        write_raster(path, np.eye(16, dtype=np.uint8), colormap={0: BLACK, 1: RED})
    classes = scan_dataset(tmp_path, "#000000=rest,#ff0000=roof").classes
    assert classes.table == {0: 0, 1: 1} and classes.colors == (BLACK, RED)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_are_read_by_the_palette_of_classes_json(tmp_path, suffix):
    color_set(tmp_path, [BLUE, RED, BLACK], suffix)
    content = {"names": ["sea", "land"], "palette": [BLUE, RED], "ignore_index": "#000000"}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    info = scan_dataset(tmp_path)
    assert info.classes.table == {255: 0, 0xFF0000: 1} and info.classes.ignored == (0,)
    item = SegmentationDataset(info.splits["val"], info.classes)[0]
    assert item["mask"][0].tolist() == [0] * 6 + [1] * 5 + [-1] * 5
    assert Classes.from_dict(json.loads(json.dumps(info.classes.to_dict()))) == info.classes
    table = [line.split() for line in labels_table(info)]
    assert ["#0000ff", "0", "sea", "480"] in table and ["#000000", "-", "ignored", "400"] in table
    assert scan_dataset(tmp_path, num_classes=3).classes.names == ("sea", "land", "class_2")


def test_colours_without_a_table_are_sorted(tmp_path):
    color_set(tmp_path, [(*RED, 255), (*BLACK, 255), (*GREEN, 0)])  # what is transparent is not labelled
    info = scan_dataset(tmp_path)
    assert info.classes.names == ("#000000", "#ff0000") and info.classes.colors == (BLACK, RED)
    assert "labels hold 2 colours: read as classes in the order" in info.notices[0]
    assert info.label_counts["val"].tolist() == [160, 192]
    with pytest.raises(UserError, match="1 classes were asked for, the labels have 2"):
        scan_dataset(tmp_path, num_classes=1)


def test_colours_by_map(tmp_path):
    color_set(tmp_path, [RED, GREEN, BLACK])
    classes = scan_dataset(tmp_path, "#ff0000=roof,#00ff00=tree,*=ignore").classes
    assert classes.names == ("roof", "tree") and classes.colors == (RED, GREEN) and classes.ignored == (0,)
    with pytest.raises(UserError, match=r"colour #000000 in 80 pixels; allowed are #00ff00, #ff0000; save"):
        scan_dataset(tmp_path, "#ff0000=roof,#00ff00=tree")


def test_colours_that_nearly_agree(tmp_path):
    root = color_set(tmp_path, [RED, GREEN])
    label = np.zeros((3, 16, 16), np.uint8)
    label[0], label[0, 0, :5] = 255, 252
    write_raster(root / "labels" / "t1.png", label)
    with pytest.raises(UserError, match=r"colour #fc0000 in 5 pixels, nearly #ff0000 \(763 pixels\)"):
        scan_dataset(root)
    content = {"names": ["roof", "tree"], "palette": [RED, GREEN]}
    (root / "classes.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"t1\.png holds the colour #fc0000 in 5 pixels; nearly #ff0000 \(roof\)"
    ):
        scan_dataset(root)
    assert scan_dataset(root, "#fc0000=roof").classes.table[0xFC0000] == 0


def test_a_picture_is_no_label(tmp_path):
    root = color_set(tmp_path, [RED, GREEN])
    noise = np.random.default_rng(0).integers(0, 255, (3, 16, 16)).astype(np.uint8)
    write_raster(root / "labels" / "t1.png", noise)
    with pytest.raises(UserError, match=r"labels hold 2\d\d colours, .*smoothed or compressed"):
        scan_dataset(root)


def test_colours_and_numbers_do_not_mix(tmp_path):
    root = color_set(tmp_path, [RED, GREEN])
    write_raster(root / "labels" / "t1.png", np.zeros((16, 16), np.uint8))
    with pytest.raises(UserError, match=r"t0\.png holds colours and .*t1\.png holds numbers"):
        scan_dataset(root)


@pytest.mark.parametrize(
    ("greys", "table"),
    [((0, 1, 2), {0: 0, 1: 1, 2: 2}), ((0, 255), {0: 0, 255: 1}), ((0, 1, 255), {0: 0, 1: 1})],
)
def test_grey_labels_of_three_bands_hold_numbers(tmp_path, greys, table):
    info = scan_dataset(color_set(tmp_path, [(grey,) * 3 for grey in greys]))
    assert info.classes.table == {value * 0x010101: index for value, index in table.items()}
    assert "grey pictures of three bands" in info.notices[0]
    mask = SegmentationDataset(info.splits["val"], info.classes)[0]["mask"]
    assert set(np.unique(mask)) == {table.get(grey, -1) for grey in greys}


def test_jpeg_labels_are_refused(tmp_path):
    color_set(tmp_path, [RED, GREEN], ".jpg")
    with pytest.raises(UserError, match="is a JPEG: its compression changes the class numbers"):
        scan_dataset(tmp_path)


def test_evaluation_of_other_values(tmp_path):
    write_dataset(tmp_path, values=(10, 20, 30))
    known = Classes(("ice", "rock"), (RED, BLUE), {0: 0, 1: 1}, (255,))
    classes = scan_dataset(tmp_path, "10=Rock,20=0,*=ignore", classes=known).classes
    assert classes.names == ("ice", "rock") and classes.table == {10: 1, 20: 0} and 30 in classes.ignored
    with pytest.raises(UserError, match="names the class snow, the checkpoint has ice, rock"):
        scan_dataset(tmp_path, "10=snow,20=0,*=ignore", classes=known)
    color_set(tmp_path / "colors", [RED, BLUE])
    with pytest.raises(UserError, match="holds colours; the classes at hand are told by numbers"):
        scan_dataset(tmp_path / "colors", classes=known)
    assert (
        scan_dataset(tmp_path / "colors", "#ff0000=ice,#0000ff=rock", classes=known).classes.kind == "color"
    )


def test_old_checkpoints_have_numbers():
    old = {"names": ["a"], "colors": [[1, 2, 3]], "table": [[0, 0]], "ignored": [255]}
    assert Classes.from_dict(old) == Classes(("a",), ((1, 2, 3),), {0: 0}, (255,))
    assert pack_color((1, 2, 3)) == 0x010203
