"""predict_large.py goes on after an interruption and gives the same files."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.scene_helpers import WINDOWS, Bands, blobs, large, names, read, use, write_scene
from utils.inference import resume
from utils.inference.results import SceneResults


class PowerCutError(RuntimeError):
    """Stands for a power cut."""


def interrupted(monkeypatch, rows: int, *words) -> None:
    """Run until this many rows are complete, then stop; every row of tiles is a checkpoint."""
    monkeypatch.setattr(resume, "SECONDS", 0.0)
    whole = SceneResults.advance

    def advance(self, bottom):
        whole(self, bottom)
        if bottom >= rows:
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(SceneResults, "advance", advance)
        with pytest.raises(PowerCutError):
            large(*words)


MORE = ("--SCORES", "probabilities:uint8,entropy:float16", "--VECTOR", "--OVERLAP", "0.6", *WINDOWS)


@pytest.mark.parametrize("kind", ["tif", "cog"])
def test_resume_gives_the_same_files(kind, tmp_path, monkeypatch, capsys):
    network = use(monkeypatch, Bands(5))
    image = blobs(900, 150)
    image[:, 500:520] = 0
    source = write_scene(tmp_path / "a.tif", image, nodata=0)
    more = (*MORE, "--FORMAT", kind)
    assert large(source, tmp_path / "whole", *more) == 0
    every = sum(call[0] for call in network.calls)
    output = tmp_path / "parts"
    for rows in (300, 640):
        interrupted(monkeypatch, rows, source, output, *more, "--RESUME")
        unfinished = names(output)
        assert all(name.endswith((".part", ".resume.json")) for name in unfinished), unfinished
    with (output / "a.tif.part").open("ab") as file:
        file.write(b"written after the last checkpoint" * 1000)
    network.calls.clear()
    assert large(source, output, *more, "--RESUME") == 0
    assert sum(call[0] for call in network.calls) < 0.6 * every
    assert names(output) == names(tmp_path / "whole")
    for name in names(output):
        if name.endswith(".tif"):
            assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    pictures = [np.array(Image.open(folder / "a_overlay.png")) for folder in (output, tmp_path / "whole")]
    assert np.array_equal(*pictures)
    shares = [text.split("results are in")[0] for text in capsys.readouterr().out.split("share of")[1:]]
    assert shares[0] == shares[-1]


def test_resume_refuses_other_settings_and_starts_anew_without_the_flag(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands())
    source, output = write_scene(tmp_path / "a.tif", blobs(700, 100)), tmp_path / "out"
    interrupted(monkeypatch, 300, source, output, *WINDOWS)
    assert large(source, output, *WINDOWS, "--RESUME", "--BLEND", "flat") == 2
    assert "was begun with another blend; repeat the flags of that run" in capsys.readouterr().err
    assert json.loads((output / "a.resume.json").read_text())["progress"]["rows"] == 256
    assert large(source, output, *WINDOWS, "--BLEND", "flat") == 0
    assert names(output) == ["a.tif", "a.tif.aux.xml", "a_overlay.png"]
    (output / "b.resume.json").write_text("damaged")
    write_scene(tmp_path / "b.tif", blobs(50, 50))
    assert large(tmp_path / "b.tif", output, *WINDOWS, "--RESUME") == 0


def test_resume_leaves_out_finished_scenes(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Bands())
    (tmp_path / "in").mkdir()
    for name, height in (("a", 100), ("b", 700)):
        write_scene(tmp_path / f"in/{name}.tif", blobs(height, 100))
    interrupted(monkeypatch, 300, tmp_path / "in", tmp_path / "out", *WINDOWS)
    assert "a.tif" in names(tmp_path / "out") and "b.tif" not in names(tmp_path / "out")
    before = (tmp_path / "out/a.tif").stat().st_mtime_ns
    shutil.copytree(tmp_path / "out", tmp_path / "lost")
    (tmp_path / "lost/a.tif").unlink()
    assert large(tmp_path / "in", tmp_path / "lost", *WINDOWS, "--RESUME") == 0
    assert np.array_equal(read(tmp_path / "lost/a.tif"), read(tmp_path / "out/a.tif"))
    capsys.readouterr()
    assert large(tmp_path / "in", tmp_path / "out", *WINDOWS, "--RESUME") == 0
    assert (tmp_path / "out/a.tif").stat().st_mtime_ns == before
    assert not any(name.endswith((".json", ".part")) for name in names(tmp_path / "out"))
    resumed = capsys.readouterr().out.split("share of")[1]
    assert large(tmp_path / "in", tmp_path / "new", *WINDOWS) == 0
    assert capsys.readouterr().out.split("share of")[1].splitlines()[1:4] == resumed.splitlines()[1:4]
