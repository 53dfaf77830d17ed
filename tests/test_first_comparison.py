"""The benchmarks' files of results, and the first comparison on a tiny data set."""

import csv
import threading

import pytest

from benchmarks import common, first_comparison
from benchmarks.common import add_row, read_rows
from nets import list_models
from nets.errors import UserError
from tests.tiny_dataset import write_dataset, write_list


def test_rows_are_kept_replaced_and_added_side_by_side(tmp_path):
    path = tmp_path / "results" / "table.csv"
    assert read_rows(path) == []
    add_row(path, {"name": "a", "set": 1, "score": 0.1}, ("name", "set"))
    add_row(path, {"name": "a", "set": 1, "score": 0.2}, ("name", "set"))
    assert read_rows(path) == [{"name": "a", "set": "1", "score": "0.2"}]
    rows = [{"name": str(i), "set": 2, "score": i} for i in range(8)]
    threads = [threading.Thread(target=add_row, args=(path, row, ("name", "set"))) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["name"] for row in read_rows(path)) == [*"01234567", "a"]


def test_every_family_takes_part_and_unet_three_times():
    found = first_comparison.networks(list_models())
    assert {flags[1] for flags in found.values()} == set(list_models())
    assert len(found) == len(list_models()) + 2
    assert found["unet mobilenet_v2"] == ["--MODEL_TYPE", "unet", "--BACKBONE_TYPE", "mobilenet_v2"]
    assert found["segformer b0"] == ["--MODEL_TYPE", "segformer"]


def test_a_folder_for_every_set(tmp_path):
    with pytest.raises(UserError, match="no folder is given for any data set; --CAMVID is"):
        first_comparison.main([])
    with pytest.raises(UserError, match="no folder is given for water8"):
        first_comparison.main(["--CAMVID", str(tmp_path), "--SETS", "water8"])


def test_run_stop_and_go_on(tmp_path, monkeypatch, capsys):
    data = write_dataset(tmp_path / "data", size=32, tiles=2)
    write_list(data, "test", ["v0"])
    (data / "classes.json").write_text('{"names": ["land", "water", "ice"]}')
    table = tmp_path / "table.csv"
    monkeypatch.setattr(first_comparison, "TABLE", table)
    monkeypatch.setattr(first_comparison, "ENCODERS", {"unet": ("test_resnet",)})
    words = ["--WATER", str(data), "--FAMILIES", "U-Net", "--EPOCHS", "1", "--CROP_SIZE", "32"]
    assert first_comparison.main(words) == 0
    (row,) = read_rows(table)
    assert (row["network"], row["set"], row["epochs"], row["crop"]) == (
        "unet test_resnet", "water8", "1", "32x32",
    )  # fmt: skip
    assert 0 <= float(row["test_mIoU"]) <= 1 and 0 <= float(row["water_IoU"]) <= 1
    assert int(row["parameters"]) > 1e6 and float(row["GFLOPs"]) > 0 and row["device"] and row["torch"]
    # A finished run is not repeated, another budget is another run.
    monkeypatch.setattr(first_comparison, "compare", lambda *_: pytest.fail("run again"))
    capsys.readouterr()
    assert first_comparison.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "| network | parameters | water8 mIoU | water8 water IoU | water8 GFLOPs | water8 s/epoch |"
    )
    assert lines[2].startswith("| unet test_resnet | ")
    assert lines[4].startswith("water8: 1 epochs, crops of 32x32 pixels, batches of 8; ")
    other = {**row, "crop": "64x64"}
    monkeypatch.setattr(first_comparison, "compare", lambda *_: other)
    assert first_comparison.main([*words[:-1], "64"]) == 0
    with table.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_table():
    common_part = {"epochs": "12", "batch": "8", "parameters": "14000000", "device": "CPU", "torch": "2.15.0"}
    common_part["precision"] = "bf16"
    water = {**common_part, "set": "water8", "crop": "128x128", "test_mIoU": "0.8", "water_IoU": "0.75"}
    street = {**common_part, "set": "camvid-small", "crop": "176x240", "test_mIoU": "0.4", "water_IoU": ""}
    cost = {"GFLOPs": "1.234", "seconds_per_epoch": "61.7"}
    rows = [{**water, **cost, "network": "unet x"}, {**street, **cost, "network": "fcn y"}]
    rows.append({**street, **cost, "network": "unet x"})
    lines = first_comparison.table(rows).splitlines()
    assert lines[0].startswith("| network | parameters | camvid-small mIoU | camvid-small GFLOPs |")
    assert lines[2] == "| fcn y | 14.00 M | 0.400 | 1.2 | 62 |  |  |  |  |"
    assert lines[3] == "| unet x | 14.00 M | 0.400 | 1.2 | 62 | 0.800 | 0.750 | 1.2 | 62 |"
    budget = "camvid-small: 12 epochs, crops of 176x240 pixels, batches of 8"
    assert lines[5] == f"{budget}; CPU in bf16 with torch 2.15.0"


def test_a_run_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with common.scratch_folder():
        (common.Path.cwd() / "file").write_text("x")
    assert common.Path.cwd() == tmp_path and not list(tmp_path.iterdir())
