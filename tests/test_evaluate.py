"""The evaluation pass, its reports and the program, with a 1x1 network."""

import csv
import json
import sys

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from torch import nn

import Structure
from evaluate import main
from nets.errors import UserError
from tests.helpers import ROOT, quick_answer
from utils.data.band_choice import TrainedBands
from utils.data.labels import Classes
from utils.evaluation.evaluate import evaluate_network
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.report import table, text_width, write_confusion, write_images, write_metrics
from utils.evaluation.split import compare_classes, open_split, worst_images
from utils.inference.padding import pad_to_rules

CLASSES = Classes(("rock", "ice"), ((90, 60, 30), (200, 230, 255)), {0: 0, 255: 1}, (9,))
CPU = torch.device("cpu")


class Brightest(nn.Module):
    """A 1x1 network: class 1 where the first band exceeds 100; it wants sides that divide by 48."""

    size_divisor, min_size, task = 48, 32, "multiclass"
    num_classes, bands = 2, 4

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(4, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.classifier.weight.data[1, 0] = 1
        self.classifier.bias.data[1] = -100
        self.sizes, self.modes = [], []
        self.about = {"classes": CLASSES.to_dict(), "bands": {"names": ["red", "green", "blue", "nir"]}}

    def forward(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        self.modes.append(self.training)
        return {"logits": self.classifier(images.nan_to_num())}

    def probabilities(self, outputs):
        return outputs["logits"].softmax(1)


def batch(values: list, masks: list) -> dict:
    """One batch of images (B, 4, H, W) whose first band is `values` (B, H, W)."""
    first = torch.tensor(values, dtype=torch.int16)[:, None]
    mask = torch.tensor(masks, dtype=torch.int16)
    image = torch.cat([first, torch.zeros_like(first).expand(-1, 3, -1, -1)], dim=1)
    return {"image": image, "valid": mask > -2, "mask": mask, "name": ["x"] * len(mask)}


def criterion(outputs, masks):
    """Give the number of valid pixels as the total loss and the share of class 1 as the main one."""
    valid = (masks >= 0).sum().float()
    return valid, (masks == 1).sum() / valid


@pytest.fixture
def dataset(tmp_path):
    """Four-band tiles of three sizes with labels {0, 255} and 9 ignored; the last one is labelled wrongly."""
    root = tmp_path / "data"
    for folder in ("annotations", "images", "labels"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    shapes = {"a": (40, 40), "b": (40, 40), "sub/c": (64, 50), "d": (33, 70)}
    for name, (height, width) in shapes.items():
        image = rng.integers(0, 200, (4, height, width)).astype(np.uint16)
        label = np.where(image[0] > 100, 255, 0).astype(np.uint8)
        label[:2] = 9
        for folder in ("images", "labels"):
            (root / folder / name).parent.mkdir(exist_ok=True)
        options = {"driver": "GTiff", "count": 4, "height": height, "width": width, "dtype": "uint16"}
        options["transform"] = rasterio.transform.from_origin(0, 0, 10, 10)
        with rasterio.open(root / "images" / f"{name}.tif", "w", **options) as target:
            target.write(image)
        Image.fromarray(255 - label if name == "d" else label).save(root / "labels" / f"{name}.png")
    label = np.array(Image.open(root / "labels" / "d.png"))
    label[:2] = 9
    Image.fromarray(label).save(root / "labels" / "d.png")
    (root / "annotations" / "test.txt").write_text("\n".join(shapes), encoding="utf-8")
    (root / "classes.json").write_text(json.dumps({"names": ["rock", "ice"]}), encoding="utf-8")
    return root


def read_csv(path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("wrap", [lambda network: network, nn.DataParallel], ids=["plain", "DataParallel"])
def test_evaluate_network(wrap):
    inner = Brightest()
    loader = [batch([[[0, 200]], [[200, 0]]], [[[0, 1]], [[0, -1]]]), batch([[[0, 0, 0]]], [[[0, 1, -1]]])]
    confusion, losses, scores = evaluate_network(wrap(inner), loader, CPU, criterion)
    assert confusion.matrix.tolist() == [[2, 1], [1, 1]]
    assert [score.mIoU for score in scores] == [1.0, 0.0, 0.25]
    # batches of 3 and 2 valid pixels; padding must not count as valid
    assert losses["total"] == pytest.approx((3 * 3 + 2 * 2) / 5)
    assert losses["main"] == pytest.approx((3 * (1 / 3) + 2 * (1 / 2)) / 5)
    assert inner.sizes == [(48, 48), (48, 48)]
    assert evaluate_network(wrap(inner), loader, CPU)[1] is None


def test_modes_are_restored_even_after_an_error():
    network = Brightest().train()
    network.norm.eval()
    evaluate_network(network, [batch([[[0, 0]]], [[[0, 0]]])], CPU)
    assert network.modes == [False]
    assert network.training and network.classifier.training and not network.norm.training

    def broken(outputs, masks):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        evaluate_network(network, [batch([[[0, 0]]], [[[0, 0]]])], CPU, broken)
    assert network.training and not network.norm.training


def test_a_batch_without_valid_pixels_does_not_spoil_the_loss():
    empty, full = batch([[[0]]], [[[-1]]]), batch([[[0, 0]]], [[[0, 1]]])
    _, losses, scores = evaluate_network(Brightest(), [empty, full], CPU, criterion)
    assert losses == {"total": 2.0, "main": 0.5}
    assert scores[0].absent == (0, 1)
    assert np.isnan(evaluate_network(Brightest(), [empty], CPU, criterion)[1]["main"])


def test_progress_wraps_the_loader_and_shows_the_loss():
    class Bar(list):
        shown = None

        def set_postfix(self, **values):
            self.shown = values

    bars = []

    def progress(loader):
        bars.append(Bar(loader))
        return bars[0]

    evaluate_network(Brightest(), [batch([[[0, 0]]], [[[0, 1]]])], CPU, criterion, progress)
    assert bars[0].shown == {"loss": "0.5000"}


@pytest.mark.parametrize(
    ("divisor", "smallest", "size", "expected"),
    [
        (1, 32, (40, 33), (40, 33)),
        (1, 32, (5, 40), (32, 40)),
        (32, 32, (33, 64), (64, 64)),
        (7, 32, (1, 36), (35, 42)),
    ],
)
def test_pad_to_rules(divisor, smallest, size, expected):
    network = nn.Identity()
    network.size_divisor, network.min_size = divisor, smallest
    images = torch.ones(2, 3, *size, dtype=torch.float32 if size == expected else torch.int16)
    padded, (height, width) = pad_to_rules(images, network)
    assert tuple(padded.shape[-2:]) == expected and (height, width) == size
    assert torch.equal(padded[..., :height, :width], images.float())
    assert padded.isnan().sum() == 2 * 3 * (expected[0] * expected[1] - size[0] * size[1])
    assert (padded is images) == (size == expected)


def test_table_is_aligned_with_chinese_names_and_has_the_line():
    metrics = compute_metrics(torch.tensor([[50, 10, 0], [20, 30, 0], [0, 0, 0]]))
    lines = table(metrics, ["洁净冰", "rock", "absent one"]).splitlines()
    widths = [text_width(line) for line in lines[:5]]
    assert len(set(widths)) == 1, lines
    assert f"mIoU {metrics.mIoU:.4f}" in lines
    assert "mIoU 0.5625" in lines
    assert any("left out of the means: absent one" in line for line in lines)
    assert lines[2].split() == ["洁净冰", "0.6250", "0.7143", "0.8333", "0.7692", "0.8065", "60"]
    assert lines[4].split() == ["absent", "one", "-", "-", "-", "-", "-", "0"]


def test_text_width_counts_console_columns():
    assert [text_width(text) for text in ("ice", "洁净冰", "e\u0301te\u0301", "")] == [3, 6, 3, 0]


def test_csv_files(tmp_path):
    matrix = torch.tensor([[5, 1, 0], [2, 2, 0], [0, 0, 0]])
    names = ["a, b", "冰", "none"]
    metrics = compute_metrics(matrix)
    write_metrics(metrics, names, tmp_path / "metrics.csv")
    rows = read_csv(tmp_path / "metrics.csv")
    assert [row["class"] for row in rows[:3]] == names
    assert float(rows[0]["IoU"]) == pytest.approx(5 / 8) and rows[0]["pixels"] == "6"
    assert rows[2]["IoU"] == rows[2]["F2"] == ""
    overall = {row["class"]: float(row["value"]) for row in rows[3:]}
    assert overall == pytest.approx(metrics.overall(), abs=1e-6)
    write_confusion(matrix, names, tmp_path / "confusion.csv")
    text = (tmp_path / "confusion.csv").read_bytes().decode("utf-8")
    assert text.splitlines() == [
        'truth \\ prediction,"a, b",冰,none',
        '"a, b",5,1,0',
        "冰,2,2,0",
        "none,0,0,0",
    ]
    write_images(["x"], [metrics], names, tmp_path / "per_image.csv")
    (row,) = read_csv(tmp_path / "per_image.csv")
    assert row["image"] == "x" and row["pixels"] == "10" and row["IoU_none"] == ""
    assert len(list(tmp_path.iterdir())) == 3


def test_worst_images_leaves_out_those_without_truth():
    scores = [
        compute_metrics(torch.tensor(m)) for m in ([[3, 1], [0, 4]], [[0, 0], [0, 0]], [[0, 4], [4, 0]])
    ]
    assert worst_images(scores, 5) == [2, 0]
    assert worst_images(scores, 1) == [2]
    assert worst_images(scores, 0) == []


def run(dataset, *flags: str) -> int:
    return main(
        ["--WEIGHTS", "x.pth", "--DATASET_PATH", str(dataset), "--SPLIT", "test", "--USE_CPU", *flags]
    )


def test_program(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    output = tmp_path / "out"
    output.mkdir()
    (output / "worst_07_old.png").write_bytes(b"")
    assert run(dataset, "--OUTPUT", str(output), "--WORST", "2", "--NUM_WORKERS", "0") == 0
    printed = capsys.readouterr().out
    pixels = {"a": 38 * 40, "b": 38 * 40, "sub/c": 62 * 50, "d": 31 * 70}
    rows = read_csv(output / "per_image.csv")
    assert {row["image"]: int(row["pixels"]) for row in rows} == pixels
    assert {row["image"]: row["mIoU"] for row in rows} == dict.fromkeys(pixels, "1.000000") | {
        "d": "0.000000"
    }
    with (output / "confusion.csv").open(encoding="utf-8") as stream:
        counts = np.array([row[1:] for row in list(csv.reader(stream))[1:]], dtype=int)
    assert counts.sum() == sum(pixels.values())
    assert counts.trace() == sum(pixels.values()) - pixels["d"]
    miou = compute_metrics(torch.from_numpy(counts)).mIoU
    assert f"\nmIoU {miou:.4f}\n" in printed
    assert "red, green, blue, nir" in printed and "rock, ice" in printed and "CPU" in printed
    names = {path.name for path in output.iterdir()}
    tables = {"metrics.csv", "confusion.csv", "confusion.png", "per_image.csv"}
    assert names == tables | {"worst_01_d.png", "worst_02_a.png"}


def test_results_stand_beside_the_weights_by_default(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    flags = ["--WEIGHTS", str(tmp_path / "run" / "best.pth"), "--WORST", "0", "--NUM_WORKERS", "0"]
    assert run(dataset, *flags) == 0
    assert (tmp_path / "run" / "evaluation_test" / "metrics.csv").is_file()


def test_mistakes_of_the_user(dataset, tmp_path, monkeypatch):
    def fails(match: str, *flags: str):
        with pytest.raises(UserError, match=match):
            run(dataset, *flags)

    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    monkeypatch.chdir(tmp_path)  # the results would stand beside x.pth
    fails("--SPLIT tset is given, .* has test; choose one", "--SPLIT", "tset")
    fails("is a file; give a folder", "--OUTPUT", str(dataset / "classes.json"))
    names = json.dumps({"names": ["rock", "ice", "snow"]})
    (dataset / "classes.json").write_text(names, encoding="utf-8")
    fails(r"names 3 classes \(rock, ice, snow\), the checkpoint 2 \(rock, ice\)")
    (dataset / "classes.json").unlink()
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(dataset / "labels" / "a.png")
    fails("label value 7 in 1600 pixels")
    monkeypatch.setattr(Brightest, "bands", 5)
    fails(r"has 4 bands; the network was trained on 5 \(red, green, blue, nir\)")
    assert not (tmp_path / "evaluation_test").exists()


def test_names_of_classes_and_bands_that_differ_are_told(dataset):
    path = dataset / "classes.json"
    path.write_text(json.dumps({"names": ["stone", "ice"]}), encoding="utf-8")
    assert (
        "names the classes stone, ice; the checkpoint's names are used: rock, ice"
        in (compare_classes(path, CLASSES)[0])
    )
    spare = Classes(("stone", "ice", "class_2"), (*CLASSES.colors, (0, 0, 0)), {0: 0, 255: 1, 2: 2}, (9,))
    assert compare_classes(path, spare) == []
    for name in ("a", "b", "sub/c", "d"):
        with rasterio.open(dataset / "images" / f"{name}.tif", "r+") as target:
            target.descriptions = ("Blue", "green", "red", "nir")
    info = open_split(dataset, "test", spare, TrainedBands(4, ("red", None, "blue", "nir")))
    assert info.band_names == ("red", "green", "blue", "nir")
    assert any("name their bands Blue, green, red, nir, the checkpoint red, green" in n for n in info.notices)
    info = open_split(dataset, "test", spare, TrainedBands(4))
    assert not any("name their bands" in notice for notice in info.notices)
    # Where all names are known, they say where each band is.
    info = open_split(dataset, "test", spare, TrainedBands(4, ("red", "green", "blue", "nir")))
    assert not any("name their bands" in notice for notice in info.notices)
    assert info.splits["test"][0].source[0].bands == (2, 1, 0, 3)


def test_help_answers_without_torch():
    code = """
import sys, evaluate
try:
    evaluate.main(["--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    assert "--WORST" in quick_answer([sys.executable, "-c", code], ROOT)


def test_windows_and_augmentations_change_nothing_for_a_pointwise_network(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    results = []
    for number, flags in enumerate(([], ["--WINDOW", "32"], ["--TTA", "flip,rot"], ["--SHOW_DIR", "shown"])):
        output = tmp_path / str(number)
        monkeypatch.chdir(tmp_path)
        assert run(dataset, "--OUTPUT", str(output), "--WORST", "0", "--NUM_WORKERS", "0", *flags) == 0
        results.append([(output / name).read_text() for name in ("metrics.csv", "per_image.csv")])
    assert results[0] == results[1] == results[2] == results[3]
    assert "BoundaryIoU" in results[0][0].splitlines()[0]
    shown = {path.name: Image.open(path).size for path in (tmp_path / "shown").iterdir()}
    assert shown == {"a.png": (40, 40), "b.png": (40, 40), "sub_c.png": (50, 64), "d.png": (70, 33)}


def test_maps_on_the_disk_are_judged_without_a_network(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Structure, "load_network", lambda path: Brightest().eval())
    common = ["--DATASET_PATH", str(dataset), "--SPLIT", "test", "--WORST", "1"]
    words = ["--WEIGHTS", "x.pth", "--USE_CPU", "--NUM_WORKERS", "0", "--OUTPUT", str(tmp_path / "network")]
    assert main([*common, *words]) == 0
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("a", "b", "sub/c", "d"):
        with rasterio.open(dataset / "images" / f"{name}.tif") as source:
            ids = (source.read(1) > 100).astype(np.uint8)
        Image.fromarray(ids).save(maps / f"{name.rsplit('/', 1)[-1]}.png")
        label = np.array(Image.open(dataset / "labels" / f"{name}.png"))
        Image.fromarray(np.where(label == 255, 1, label)).save(dataset / "labels" / f"{name}.png")
    labels = json.dumps({"names": ["rock", "ice"], "ignore_index": 9})
    (dataset / "classes.json").write_text(labels, encoding="utf-8")
    monkeypatch.setattr(Structure, "load_network", lambda path: pytest.fail("a network was loaded"))
    assert main([*common, "--PREDICTIONS", str(maps)]) == 0
    for name in ("metrics.csv", "per_image.csv", "confusion.csv"):
        judged = (maps / "evaluation_test" / name).read_text()
        assert judged == (tmp_path / "network" / name).read_text()
    ids = np.array(Image.open(maps / "a.png"))
    ids[20:22] = 255
    Image.fromarray(ids).save(maps / "a.png")
    capsys.readouterr()
    assert main([*common, "--PREDICTIONS", str(maps)]) == 0
    assert "80 labelled pixels have no prediction" in capsys.readouterr().out

    def fails(match: str, *more: str):
        with pytest.raises(UserError, match=match):
            main([*common, "--PREDICTIONS", str(maps), *more])

    fails("either a network or maps are judged", "--WEIGHTS", "x.pth")
    ids[0] = 7
    Image.fromarray(ids).save(maps / "a.png")
    fails(r"a\.png holds 7 in 40 pixels; class ids from 0 to 1 are wanted")
    Image.fromarray(ids[1:]).save(maps / "a.png")
    fails(r"a\.png has 39 x 40 pixels, its image 40 x 40")
    (maps / "a.png").unlink()
    fails(r"has no map of a; a\.tif or a\.png is wanted")


def test_boundary_iou_by_hand():
    from utils.evaluation.boundary import BoundaryIoU, boundary_width

    assert boundary_width(480, 640) == 16 and boundary_width(5, 5) == 1
    truth = torch.zeros(1, 12, 12, dtype=torch.int64)
    truth[:, 3:9, 3:9] = 1
    shifted = torch.zeros_like(truth)
    shifted[:, 3:9, 4:10] = 1
    same, moved = BoundaryIoU(3), BoundaryIoU(3)
    same.update(truth, truth)
    assert same.compute() == (1.0, (1.0, 1.0, None))
    moved.update(shifted, truth)
    # the outlines of class 1 are two frames of 20 pixels; only their top and bottom lines share 2 x 5
    assert (moved.hits[1], moved.union[1]) == (10, 30)
    ignored = truth.clone()
    ignored[:, :, 9:] = -1
    edge = BoundaryIoU(2)
    edge.update(truth, ignored)
    assert edge.union[1] == 16  # the right line is no outline any more, but for its two corners


def test_boundary_iou_against_erosion_step_by_step():
    from utils.evaluation.boundary import BoundaryIoU, boundary_width

    torch.manual_seed(0)
    truth, found = torch.rand(2, 70, 90).mul(2.2).long(), torch.rand(2, 70, 90).mul(2.2).long()
    truth[:, :40, :50] = found[:, 5:45, 3:53] = 1
    result = BoundaryIoU(3)
    result.update(found, truth)
    steps = boundary_width(70, 90)
    for index in range(3):
        outlines = []
        for masks in (truth, found):
            inside = (masks == index).float()
            for _ in range(steps):  # what a 3 x 3 neighbourhood leaves, step by step, zero beyond the image
                padded = nn.functional.pad(inside, (1, 1, 1, 1))
                inside = -nn.functional.max_pool2d(-padded[:, None], 3, 1)[:, 0]
            outlines.append((masks == index) & (inside == 0))
        assert result.hits[index] == (outlines[0] & outlines[1]).sum()
        assert result.union[index] == (outlines[0] | outlines[1]).sum()
