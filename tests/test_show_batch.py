"""The picture of a training batch: the very batch that train.py draws, invalid and ignored pixels marked."""

import numpy as np
import pytest
from PIL import Image

import tools.show_batch as program
import utils.evaluation.batches as batches
from tests.tiny_dataset import write_dataset, write_raster
from utils.data.labels import Classes
from utils.data.loaders import TrainingSampler, to_device
from utils.data.photometric import BandRanges
from utils.options import train_options
from utils.program import run_program
from utils.training.assembly import assemble
from utils.training.plan import make_plan
from utils.training.setup import build_network

NETWORK = ["--MODEL_TYPE", "unet", "--BACKBONE_TYPE", "test_resnet", "--MODEL_OPTIONS", "decoder_channels=8"]
FLAGS = ["--AUGMENT", "strong,cutmix=0.5", "--BATCH_SIZE", "3", "--CROP_SIZE", "40,48", "--SEED", "5"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path / "data", values=(0, 1, 255), bands=5, size=64, tiles=4)


def drawn(monkeypatch, data, *words):
    """Run the program and return what it gave to be drawn."""
    calls = []
    draw = batches.draw_batch
    monkeypatch.setattr(batches, "draw_batch", lambda *args: calls.append(args) or draw(*args))
    assert run_program(program.main, ["--DATASET_PATH", str(data), *FLAGS, *words]) == 0
    return calls


def test_the_batch_is_the_one_that_trains(data, monkeypatch, tmp_path, capsys):
    words = ["--BATCHES", "1", "--EPOCH", "2", "--BANDS_SHOWN", "4,3,2"]
    [(images, masks, names, shown, *_)] = drawn(monkeypatch, data, *words)
    assert shown == (3, 2, 1) and images.shape == (3, 5, 40, 48)
    words = [*FLAGS, *NETWORK, "--USE_CPU", "--NUM_WORKERS", "0"]
    options = train_options(["--DATASET_PATH", str(data), *words])
    session = assemble(make_plan(options, None, None, build_network))
    session.sampler.set_epoch(1)
    batch = next(iter(session.train_loader))
    expected, classes = to_device(batch, "cpu")
    assert batch["name"] == names
    assert np.array_equal(images, expected.numpy(), equal_nan=True) and np.array_equal(masks, classes.numpy())
    text = capsys.readouterr().out
    assert "augment: strong: scale" in text and "color is left out" in text
    picture = np.asarray(Image.open(tmp_path / "batch.png").convert("RGB")).astype(int)
    assert (np.abs(picture - batches.MARK).sum(axis=2) < 60).sum() > 100, "ignored pixels are striped"


def test_several_batches_are_numbered(data, monkeypatch, tmp_path):
    write_raster(data / "images" / "t0.tif", np.zeros((5, 64, 64), np.uint16))
    calls = drawn(monkeypatch, data, "--BATCHES", "2", "--BATCH_SIZE", "2", "--OUTPUT", "out/b.png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_1.png", "b_2.png"}
    assert len(calls) == 2 and len(TrainingSampler(4, 2).batches(0)) == 2


def test_pictures_have_one_scale_and_mark_what_does_not_count():
    ranges = BandRanges((100.0, 50.0, 0.0, 10.0), (20.0, 10.0, 0.0, 1.0))
    limits = batches.display_limits(ranges, (0, 3, 1), "uint16")
    assert limits.tolist() == [[50, 7.5, 25], [150, 12.5, 75]]
    image = np.full((4, 2, 3), 10.0, np.float32)
    image[0] = 125
    image[:, 1, 2] = np.nan
    picture = batches.stretch(image, (0, 3, 1), limits)
    assert picture[0, 0].tolist() == [191, 128, 0] and picture[1, 2].tolist() == [128, 128, 128]
    assert batches.stretch(image, (0,), limits[:, :1])[0, 0].tolist() == [191] * 3
    constant = batches.display_limits(ranges, (2,), "uint16")
    assert batches.stretch(image * 0, (2,), constant)[0, 0].tolist() == [128] * 3
    eight_bit = batches.display_limits(BandRanges((9.0,) * 3, (1.0,) * 3), (0, 1, 2), "uint8")
    assert eight_bit.tolist() == [[0] * 3, [255] * 3]
    mask = np.array([[0, -1], [-1, 0]]).repeat(12, 0).repeat(12, 1)
    marked = (batches.mark_ignored(np.zeros((24, 24, 3), np.uint8), mask) == batches.MARK).all(axis=2)
    assert 0.1 < marked[mask == -1].mean() < 0.3 and not marked[mask == 0].any()


def test_a_batch_without_a_class_is_drawn(tmp_path):
    classes = Classes(("a",), ((1, 2, 3),), {0: 0}, ())
    images, masks = np.full((1, 1, 40, 40), np.nan, np.float32), np.full((1, 40, 40), -1)
    limits = np.array([[0.0], [1.0]])
    batches.draw_batch(images, masks, ["x"], (0,), limits, classes, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--BANDS_SHOWN", "6,1,2"], "--BANDS_SHOWN 6: the images have 5 bands; count from 1"),
        (["--BANDS_SHOWN", "1,2"], "one or three numbers like 4,3,2 are wanted"),
        (["--BANDS_SHOWN", "0,1,2"], "one or three numbers"),
        (["--OUTPUT", "x.jpg"], "is no PNG"),
        (["--AUGMENT", "stron"], "nearest: strong"),
        (["--BANDS_SHOW", "1"], "did you mean --BANDS_SHOWN?"),
    ],
)
def test_mistakes_are_one_line(data, capsys, words, message):
    assert run_program(program.main, ["--DATASET_PATH", str(data), *words]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
