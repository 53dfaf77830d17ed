"""The demo data set: layout, georeferencing, determinism, refusals, and that one pixel is not enough."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from nets.errors import UserError
from tests.helpers import ROOT, quick_answer
from tools import demo_tiles, make_demo_dataset
from tools.demo_scene import BANDS, CLASSES, IGNORE, cast_shadow, render_scene

SMALL = {"TILE": 64, "TRAIN_TILES": 24, "VAL_TILES": 10, "TEST_TILES": 10, "SCENE_SIZE": "256,272"}
TINY = {"TILE": 32, "TRAIN_TILES": 2, "VAL_TILES": 1, "TEST_TILES": 1, "SCENE_SIZE": "256,256"}
SPLITS = ("train", "val", "test")


def make(folder: Path, flags: dict, **more: object) -> int:
    pairs = {"OUTPUT": folder, **flags, **more}.items()
    return make_demo_dataset.main([word for name, value in pairs for word in (f"--{name}", str(value))])


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    assert make(folder, SMALL) == 0
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    assert make(folder, TINY) == 0
    return folder


def names(demo: Path, split: str) -> list[str]:
    return (demo / "annotations" / f"{split}.txt").read_text().split()


def load(demo: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 10, H, W) and labels (N, H, W)."""
    pairs = []
    for name in names(demo, split):
        image, label = demo / "images" / f"{name}.tif", demo / "labels" / f"{name}.tif"
        with rasterio.open(image) as first, rasterio.open(label) as second:
            pairs.append((first.read(), second.read(1)))
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tree_and_classes(demo):
    assert {p.name for p in demo.iterdir()} == {
        "annotations", "images", "labels", "scene", "classes.json", "demo.json",
    }  # fmt: skip
    assert [len(names(demo, split)) for split in SPLITS] == [24, 10, 10]
    listed = sorted(f"{name}.tif" for split in SPLITS for name in names(demo, split))
    assert sorted(p.name for p in (demo / "images").iterdir()) == listed
    assert sorted(p.name for p in (demo / "labels").iterdir()) == listed
    classes = json.loads((demo / "classes.json").read_text())
    assert classes["names"] == list(CLASSES) and classes["num_classes"] == 3
    assert classes["ignore_index"] == 255 and classes["bands"] == list(BANDS)
    assert len(classes["palette"]) == 3
    assert not list(demo.parent.glob("*.part"))


def test_georeferencing_round_trips(demo):
    files = [f"{folder}/{names(demo, 'train')[0]}.tif" for folder in ("images", "labels")]
    for image_file, label_file in (files, ["scene/scene.tif", "scene/label.tif"]):
        with rasterio.open(demo / image_file) as image, rasterio.open(demo / label_file) as label:
            assert image.dtypes == ("uint16",) * 10 and label.dtypes == ("uint8",)
            assert image.descriptions == BANDS
            assert image.nodata == 0 and label.nodata == 255
            assert image.crs == label.crs and image.crs.to_epsg() == 32645
            assert image.res == (10.0, 10.0) and image.transform == label.transform
            assert image.profile["tiled"] and image.profile["compress"] == "deflate"
            assert label.colormap(1)[1][:3] == (225, 125, 45)
            # Where there are no data every band says so, and the label is ignored.
            empty = image.dataset_mask() == 0
            np.testing.assert_array_equal(empty, label.read(1) == IGNORE)
            np.testing.assert_array_equal(empty, (image.read() == 0).any(axis=0))


def test_areas_do_not_overlap(demo):
    boxes = []
    for path in [*(demo / "images").iterdir(), demo / "scene" / "scene.tif"]:
        with rasterio.open(path) as source:
            boxes.append(source.bounds)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom
            assert apart, (a, b)


def test_every_split_has_every_class(demo):
    for split in SPLITS:
        _, label = load(demo, split)
        counts = np.bincount(label.ravel(), minlength=256)
        assert counts[[0, 1, 2, IGNORE]].sum() == label.size
        assert counts[:3].min() / counts[:3].sum() >= 0.05, split
        assert (label != IGNORE).any(axis=(1, 2)).all()
    assert any((load(demo, split)[1] == IGNORE).any() for split in SPLITS)


def box(image: np.ndarray, size: int) -> np.ndarray:
    """Return (C, H, W) running means, edges repeated."""
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (size // 2, size // 2)
        padded = np.pad(image, width, mode="edge")
        image = np.lib.stride_tricks.sliding_window_view(padded, size, axis=axis).mean(axis=-1)
    return image


def features(image: np.ndarray, context: bool) -> np.ndarray:
    """Return (F, H, W): the logarithms of the bands; with context also local means and spreads."""
    value = np.log(np.maximum(image, 1).astype(np.float64))
    parts = [value]
    if context:
        for size in (5, 17, 33):
            mean = box(value, size)
            parts += [mean, np.log(box(value[[2, 7]] ** 2, size) - mean[[2, 7]] ** 2 + 1e-4)]
    return np.concatenate(parts)


def gaussian_iou(demo: Path, context: bool) -> np.ndarray:
    """Return the test IoU per class of a quadratic Gaussian classifier fitted to the training split."""

    def table(split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = load(demo, split)
        inner = np.concatenate(
            [features(i, context)[:, ::2, ::2].reshape(-1, 32 * 32) for i in images], axis=1
        )
        truth = labels[:, ::2, ::2].ravel()
        return inner.T[truth != IGNORE], truth[truth != IGNORE]

    x, y = table("train")
    test, truth = table("test")
    scores = []
    for k in range(3):
        mean, covariance = x[y == k].mean(axis=0), np.cov(x[y == k].T) + 1e-5 * np.eye(x.shape[1])
        distance = np.einsum("nf,nf->n", test - mean, np.linalg.solve(covariance, (test - mean).T).T)
        scores.append(np.log((y == k).mean()) - 0.5 * (distance + np.linalg.slogdet(covariance)[1]))
    guess = np.argmax(scores, axis=0)
    both = [((guess == k) & (truth == k)).sum() / ((guess == k) | (truth == k)).sum() for k in range(3)]
    return np.array(both)


def test_one_pixel_is_not_enough(demo):
    alone, context = gaussian_iou(demo, context=False), gaussian_iou(demo, context=True)
    assert alone[0] > 0.8  # clean ice has a spectrum of its own
    assert alone[1:].mean() < 0.5, alone  # always guessing debris where there is no clean ice gives 0.4
    assert context[1:].mean() > alone[1:].mean() + 0.08, (alone, context)


def test_same_seed_same_bytes(tiny, tmp_path):
    again = tmp_path / "again"
    assert make(again, TINY) == 0
    assert content(tiny) == content(again)
    assert make(again, TINY, SEED=1) == 0  # over its own output
    first, second = content(tiny), content(again)
    assert first["scene/scene.tif"] != second["scene/scene.tif"]


def test_landscapes_differ():
    assert not np.array_equal(render_scene((0, 1), (64, 64)).image, render_scene((0, 2), (64, 64)).image)


def test_shadow_falls_away_from_the_sun():
    ground = np.zeros((40, 60), np.float32)
    ground[:, 30] = 100.0  # a wall 100 m high; the sun stands in the east at 45 degrees
    lit = cast_shadow(ground, 10.0, (0.0, 1.0), 1.0)
    assert (lit[:, 31:] > 0.5).all() and (lit[:, :19] > 0.5).all()
    assert (lit[:, 21:30] < 0.1).all()


@pytest.mark.parametrize("where", ["stranger", "extra", "file"])
def test_does_not_touch_what_it_did_not_make(tiny, tmp_path, capsys, where):
    folder = tmp_path / "demo"
    if where == "file":
        folder.write_text("mine")
    elif where == "stranger":
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    else:
        shutil.copytree(tiny, folder)
        (folder / "scene" / "thesis.txt").write_text("mine")
    before = content(tmp_path)
    capsys.readouterr()
    assert make(folder, TINY) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder) in said and "choose another --OUTPUT" in said
    assert content(tmp_path) == before


def test_broken_run_leaves_the_earlier_set(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    shutil.copytree(tiny, folder)
    before = content(tmp_path)

    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(demo_tiles, "write_scene", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        make(folder, TINY)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--TILE", "100"), ("--SCENE_SIZE", "300"), ("--SEED", "-1"), ("--VAL_TILES", "0")],
)
def test_impossible_values(tmp_path, flag, value):
    flags = make_demo_dataset.parse_arguments(["--OUTPUT", str(tmp_path / "d"), flag, value])
    with pytest.raises(UserError, match=f"^{flag} {value}: give"):
        make_demo_dataset.make_dataset(flags)
    assert not list(tmp_path.iterdir())


def test_help_is_quick_and_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "make_demo_dataset.py"), "--help"]
    assert "--OUTPUT" in quick_answer(command, tmp_path)
