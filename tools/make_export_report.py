"""Export one network of every family in every format, check each file, and write the table docs/export.md.

`python tools/make_export_report.py` goes on where it was interrupted; `--AGAIN` begins anew.
"""

import argparse
import platform
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.common import add_row, read_rows  # noqa: E402
from benchmarks.learning_check import MORE, SMALLEST  # noqa: E402
from nets import create_model, list_models  # noqa: E402
from nets.registry import parse_model_options  # noqa: E402
from utils.deployment.check import MOST, ExportError  # noqa: E402
from utils.deployment.export import export  # noqa: E402
from utils.deployment.formats import FORMATS  # noqa: E402
from utils.program import run_program  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "export.csv"
BANDS, CLASSES, CROP = 4, 5, (128, 160)
FURTHER = {
    "upernet": [["--BACKBONE_TYPE", "swin_tiny_patch4_window7_224"]],
    "mask2former": [["--BACKBONE_TYPE", "swin_tiny_patch4_window7_224"]],
    **MORE,
}

PAGE = """# Export: families by format

`export.py --WEIGHTS best.pth --FORMAT onnx|torch_export|torchscript` writes a trained network as one file for
other programs. Normalisation and probabilities are inside.

- **Input** `images`: float32 (B, C, H, W), values as in the image file, NaN where a pixel is invalid.
- **Output** `probabilities`: float32 (B, K, H, W).
- **Sizes**: any batch, height and width. The smallest size, and what sides must be a multiple of, are printed
  and stand in the file as `min_size` and `size_divisor`; smaller images are padded with NaN at the bottom and
  the right.
- **What the file says about itself**: JSON with class names, colours, bands, task and crop size. In ONNX the
  metadata entry `pureseg`, else the extra file `pureseg.json`
  (`torch.export.load(path, extra_files={{"pureseg.json": ""}})`, the same with `_extra_files` of
  `torch.jit.load`).
- **The check**: every file is run right away, by ONNX Runtime or PyTorch, on a validation image of the data
  set that the checkpoint names, or on `--IMAGE`, at four sizes (the training crop's, a smaller and a larger
  one with odd sides, the smallest), and held against the network. Where neither is there, images made from
  the band statistics serve, as in the table below.
  More than {most:g} of the largest logit, or one pixel in a thousand with another class, is a failure: exit
  code 1, and no file is left.
- **In place of a checkpoint**: `predict_small.py`, `predict_large.py` and `evaluate.py` take the `.onnx` as
  `--WEIGHTS`. They do not take a `.pt2`: opening one may run code that is inside.
- **Limits of the formats.** An ONNX file holds at most 2 GiB of weights; larger networks need `torch_export`.
  A `.pt2` keeps the CPU as its device (`torch.export.passes.move_to_device_pass` changes that). TorchScript
  keeps the CPU for good, and what was true of the traced image alone; PyTorch no longer develops it.
- **Networks that unpool.** SegNet and ENet put values where a maximum was found. Where two candidates are
  equal but for the last bit, ONNX Runtime, which sums in another order, may find the other one, and single
  pixels around it differ; no file can rule that out. The check then runs the network once more with the
  file's maxima in these places alone: all else has to agree as with any network, and the check says how many
  maxima tie and how large the difference is with the network's own.
  `torch_export` and `torchscript` run PyTorch's own operators and find the same maxima.

## Measured

One network of every family with random weights, {bands} bands, {classes} classes; a training crop of
{height} x {width} pixels. A cell is the largest difference of a log-probability (a logit, but for a
constant per pixel) as a share of the largest logit. {versions}.

| family | variant | {titles} |
|---|---|{rules}|
{table}
{missing}
Made by `python tools/make_export_report.py`.
"""
REASONS = """
## What does not work

{reasons}
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description="Export every family in every format and write a table.")
    parser.add_argument("--ONLY", default=".", help="regular expression on the families' names")
    parser.add_argument("--FORMATS", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--AGAIN", action="store_true", help="measure also what the table has already")
    parser.add_argument("--OUTPUT", type=Path, default=ROOT / "docs" / "export.md", help="page to write")
    return parser.parse_args(arguments)


def build(family: str, words: list[str]) -> nn.Module:
    """Return a network with random weights that all matter for its output."""
    flags = dict(zip(words[::2], words[1::2], strict=True))
    options = parse_model_options(flags.get("--MODEL_OPTIONS", ""))
    if "--BACKBONE_TYPE" in flags:
        options["backbone"] = flags["--BACKBONE_TYPE"]
    torch.manual_seed(0)
    network = create_model(family, bands=BANDS, num_classes=CLASSES, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() < 2:  # branches that start at zero would hide what goes wrong in them
                parameter.add_(0.1 * torch.randn_like(parameter))
        network.mean.fill_(100.0)
        network.std.fill_(40.0)
    network.about = {"crop_size": list(CROP)}
    return network


def measure(family: str, words: list[str], name: str) -> dict:
    """Return the row of a network in a format."""
    chosen, start = FORMATS[name], time.process_time()
    row = {"family": family, "variant": variant(words), "format": name, "reason": ""}
    numbers = {"probability": "", "logit": "", "pixels": "", "ties": "", "with_ties": ""}
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = export(build(family, words), chosen, Path(folder) / f"network{chosen.ending}")
            numbers = {key: f"{max(getattr(each, key) for each in found):.2g}" for key in numbers}
        except ExportError as error:
            row["reason"] = " ".join(str(error).split())
    seconds = f"{time.process_time() - start:.0f}"
    return row | numbers | {"processor_seconds": seconds, "torch": str(torch.__version__).split("+")[0]}


def variant(words: list[str]) -> str:
    """Return what flags of train.py choose, in a few words."""
    return ", ".join(words[1::2]) or "default"


def page(rows: list[dict]) -> str:
    """Return the text of docs/export.md."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cells.setdefault((row["family"], row["variant"]), {})[row["format"]] = (
            f"**no** [{row['family']}]" if row["reason"] else row["logit"] + _ties(row)
        )
    lines = [
        f"| {family} | {kind} | {' | '.join(own.get(name, 'not measured') for name in FORMATS)} |"
        for (family, kind), own in sorted(cells.items())
    ]
    missing = [family for family in list_models() if all(family != known for known, _ in cells)]
    versions = (
        f"Python {platform.python_version()}, torch {str(torch.__version__).split('+')[0]}, "
        f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    )
    text = PAGE.format(
        most=MOST,
        bands=BANDS,
        classes=CLASSES,
        height=CROP[0],
        width=CROP[1],
        versions=versions,
        titles=" | ".join(each.title for each in FORMATS.values()),
        rules="|".join("---" for _ in FORMATS),
        table="\n".join(lines),
        missing=f"\nNot measured: {', '.join(missing)}.\n" if missing else "",
    )
    reasons = [
        f"- **{row['family']}, {row['variant']}, {FORMATS[row['format']].title}**: {row['reason']}"
        for row in rows
        if row["reason"]
    ]
    return text + (REASONS.format(reasons="\n".join(reasons)) if reasons else "")


def _ties(row: dict) -> str:
    many = row["ties"] not in ("", "0")
    return f" ({row['ties']} ties, else {row['with_ties']})" if many else ""


def main(arguments: list[str] | None = None) -> int:
    """Export, print a line per file, write the table; 1 where a file is missing."""
    flags = parse_arguments(arguments)
    keys = ("family", "variant", "format")
    known = {tuple(row[key] for key in keys) for row in read_rows(TABLE)}
    for family in (each for each in list_models() if re.search(flags.ONLY, each)):
        for words in [SMALLEST.get(family, []), *FURTHER.get(family, [])]:
            for name in flags.FORMATS:
                if (family, variant(words), name) in known and not flags.AGAIN:
                    continue
                row = measure(family, words, name)
                add_row(TABLE, row, keys)
                print(f"{family}, {row['variant']}, {name}: {row['reason'] or row['logit']}", flush=True)
    rows = read_rows(TABLE)
    flags.OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    flags.OUTPUT.write_text(page(rows), encoding="utf-8")
    return int(any(row["reason"] for row in rows))


if __name__ == "__main__":
    sys.exit(run_program(main))
