"""What a user of train.py gets wrong is one line and exit code 2."""

import numpy as np
import pytest
import torch

import train
from nets.errors import UserError
from tests.tiny_dataset import write_raster
from tests.training_helpers import COMMON, run
from utils.data.dataset import SegmentationDataset
from utils.program import run_program


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--BANDS", "4"], "4 bands were asked for"),
        (["--NUM_CLASS", "2"], "2"),
        (["--MODEL_TYPE", "unett"], "no network is named 'unett'; nearest: unet"),
        (["--BACKBONE_TYPE", "resnet5o"], "no backbone is named 'resnet5o'; nearest: resnet50"),
        (["--MODEL_OPTIONS", "decoder_chanels=8"], "no option 'decoder_chanels'; nearest: decoder_channels"),
        (["--MODEL_OPTIONS", "bands=8"], "use --BANDS instead"),
        (["--CLASS_WEIGHTS", "1,2"], "3 numbers"),
        (["--AUGMENT", "light,rotatee=5"], "no key is named 'rotatee'; nearest: rotate"),
        (["--AUGMENT", "light,color=1"], "--AUGMENT color is not possible"),
        (["--NORMALIZATION", "checkpoint"], "needs --PRETRAIN_MODEL"),
        (["--RUN_NAME", "a/b"], "is not a folder name"),
        (["--MODEL_TYPE", "deeplab", "--BATCH_SIZE", "1", "--MODEL_OPTIONS", ""], "one value per channel"),
        (["--INIT_LR", "1e30", "--OPTIMIZER_TYPE", "sgd", "--EPOCHS", "20"], "use a smaller --INIT_LR"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(data, tmp_path, capsys, words, message):
    assert run(data, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    if "--INIT_LR" not in words:
        assert not (tmp_path / "pth_files").exists(), "something was written before the mistake was found"


@pytest.mark.parametrize("flags", [["--GPU_ID", "0"], ["--GPU_LIST", "0,1"]])
def test_a_gpu_that_does_not_exist(data, capsys, monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = [word for word in COMMON if word != "--USE_CPU"]
    assert run_program(train.main, ["--DATASET_PATH", str(data), *words, *flags]) == 2
    assert "GPU 0 was asked for; PyTorch sees no GPU here" in capsys.readouterr().err


def test_a_bad_label_is_named_before_anything_is_written(data, tmp_path, capsys):
    (data / "classes.json").write_text('{"names": ["a", "b", "c"], "ignore_index": 255}')
    label = np.zeros((48, 48), dtype=np.uint8)
    label[:2, :5] = 77
    write_raster(data / "labels" / "v1.png", label)
    assert run(data) == 2
    error = capsys.readouterr().err
    assert "v1.png" in error and "77" in error and "10" in error
    assert not (tmp_path / "pth_files").exists()


@pytest.mark.parametrize(
    ("empty", "message"),
    [
        ([1], "no number is in band 2 (band_2) of 3; choose others by --BAND_INDEX"),
        ([0, 2], "no number is in bands 1 (band_1), 3 (band_3) of 3; choose others by --BAND_INDEX"),
        (None, "each is no-data, NaN or infinite in some band"),
    ],
)
def test_images_without_a_valid_pixel(data, tmp_path, capsys, empty, message):
    for path in (data / "images").iterdir():
        image = np.random.default_rng(0).random((3, 48, 48), dtype=np.float32)
        if empty is None:  # every band has numbers, and no pixel has all of them
            image[0, :24], image[1, 24:] = np.nan, np.inf
        else:
            image[empty] = np.nan
        write_raster(path, image)
    assert run(data) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pixels of the training images is valid: " in error and message in error
    assert not (tmp_path / "pth_files").exists()


def test_an_image_that_breaks_in_a_worker_is_still_one_line(data, capsys, monkeypatch):
    def broken(self, sample, *_):
        raise UserError(f"{sample.image} is damaged")

    monkeypatch.setattr(SegmentationDataset, "_read", broken)
    assert run(data, "--NUM_WORKERS", "1") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(lines) == 1 and lines[0].endswith(".tif is damaged") and "Traceback" not in lines[0]
