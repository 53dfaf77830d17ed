"""--CONFIG repeats a run, and flags that are given win."""

import json

import pytest

import train
from nets.errors import UserError
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON, same
from utils.checkpoint import read_checkpoint
from utils.options import plain_options, train_options
from utils.program import run_program


def written(folder, words: list[str]) -> str:
    path = folder / "options.json"
    path.write_text(json.dumps({"flags": plain_options(train_options(words))}), encoding="utf-8")
    return str(path)


def test_every_kind_of_flag_comes_back(tmp_path):
    words = [
        "--CROP_SIZE",
        "64,96",
        "--USE_CPU",
        "--INIT_LR",
        "1e-07",
        "--STEP_RATIO",
        "0.1",
        "--MODE",
        "single",
    ]
    words += ["--MODEL_OPTIONS", "version=v3,output_stride=8", "--PATIENCE", "3,val_loss", "--FREEZE=-x"]
    words += ["--RARE_CLASS_SAMPLING", "--MAX_ITERS", "7"]
    path = written(tmp_path, [*words, "--RUN_NAME", "one", "--RESUME"])
    again, expected = train_options(["--CONFIG", path]), train_options(words)
    for name in ("CONFIG", "given"):
        delattr(again, name), delattr(expected, name)
    assert again == expected and again.RUN_NAME is None and again.RESUME is None
    assert train_options(["--CONFIG", str(tmp_path), "--CROP_SIZE", "32"]).CROP_SIZE == (32, 32)
    fewer = train_options(["--CONFIG", path, "--EPOCHS", "2"])
    assert fewer.EPOCHS == 2 and fewer.MAX_ITERS is None
    assert {"EPOCHS", "STEP_RATIO"} <= fewer.given and "BATCH_SIZE" not in fewer.given


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give the options.json of a run"),
        ("[1]", "is no options.json"),
        ("{", "is no options.json"),
        ('{"flags": {"EPOCH": 3}}', "options.json: there is no flag --EPOCH; did you mean --EPOCHS?"),
        ('{"flags": {"EPOCHS": 0}}', "options.json: argument --EPOCHS: 0 is given; it must be at least 1"),
    ],
)
def test_mistakes(tmp_path, content, message):
    path = tmp_path / "options.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        train_options(["--CONFIG", str(path)])
    assert message in str(raised.value)
    with pytest.raises(UserError, match="a resumed run has its own flags"):
        train_options(["--CONFIG", str(path), "--RESUME", "x"])


def test_a_repeated_run_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", bands=2, size=48, tiles=5)
    words = [
        "--DATASET_PATH",
        "data",
        *COMMON,
        "--LR_SCHEDULER",
        "step",
        "--STEP_RATIO",
        "0.3",
        "--LR_STEP",
        "1",
    ]
    assert run_program(train.main, [*words, "--EPOCHS", "2", "--RUN_NAME", "one"]) == 0
    assert run_program(train.main, ["--CONFIG", "pth_files/one", "--RUN_NAME", "two"]) == 0
    one, two = (read_checkpoint(tmp_path / "pth_files" / name / "last.pth") for name in ("one", "two"))
    same(one["state_dict"], two["state_dict"])
