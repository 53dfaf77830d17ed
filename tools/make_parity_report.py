"""Hold our networks against reference logits of MMSegmentation and write the table docs/parity.md.

`python tools/make_parity_report.py --REFS PATH` needs the folder of references with the scripts `compare.py`
and `parity_weights.py` that come with them, in that folder or in the one above. The bars are `compare.py`'s.
"""

import argparse
import importlib.util
import inspect
import platform
import re
import sys
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import timm  # noqa: E402
import torch  # noqa: E402

from nets.errors import UserError  # noqa: E402
from nets.importers.foreign import read_foreign  # noqa: E402
from nets.registry import get_builder  # noqa: E402
from tools.parity_runner import run  # noqa: E402
from utils.program import run_program  # noqa: E402

PAGE = """# Parity with MMSegmentation

Networks of OpenMMLab's MMSegmentation 1.2.2, rebuilt here from their checkpoint files alone:
**{same} of {compared} give the same logits.**

- **What is compared.** Each checkpoint is laid out as OpenMMLab publishes them, with seeded random weights
  that all matter for the logits. Architecture, classes and normalisation come from the configuration text
  inside (those of the authors of SeMask and ViT-Adapter have none: names and shapes of their tensors tell the
  network), and every tensor has its place. Both networks see the same normalised random images; the reference
  ran in torch {reference_torch}.
- **What the numbers are.** Largest absolute difference of the logits, divided by their standard deviation.
  "Noise" is that difference between MMSegmentation's own single and double precision.
- **What counts as the same.** At most {tol64:g} in double precision (float64), and in single precision
  (float32) at most {tol:g} or five times the noise, whichever is more.
- **When and with what.** {date}; Python {python}, torch {torch}, timm {timm}.

Made by `python tools/make_parity_report.py --REFS PATH`.

| reference | configuration | network | parameters | images | float64 | float32 | noise | verdict |
|---|---|---|---|---|---|---|---|---|
{table}

## How each was rebuilt

The options of the blueprint that differ from the family's defaults, which are the paper's network.

{options}
"""
ABSENT = """
## Not compared

{reasons}
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description="Compare our networks with reference logits and write a table.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--REFS", type=Path, required=True, help="folder of the references")
    parser.add_argument("--OUTPUT", type=Path, default=ROOT / "docs" / "parity.md", help="table to write")
    parser.add_argument("--ONLY", default=".", help="regular expression on the references' names")
    return parser.parse_args(arguments)


def load_script(refs: Path, name: str) -> ModuleType:
    """Return a script that comes with the references as a module.

    Raises:
        UserError: it is not there.
    """
    for folder in (refs, refs.parent):
        path = folder / name
        if path.exists():
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
            return module
    raise UserError(f"--REFS {refs}: there is no {name} in it or above it; give the references' folder")


def compare(scripts: ModuleType, weights: ModuleType, refs: Path, name: str) -> dict:
    """Return the row of one reference."""
    reference = scripts.Reference(str(refs), name)
    checkpoint = weights.checkpoint(weights.load_spec(reference.spec_path))
    row = {"name": name, "info": reference.info}
    try:
        blueprint = read_foreign(checkpoint).blueprint
        row |= {"family": blueprint["name"], "backbone": blueprint["options"]["backbone"]}
        row["options"] = other_options(blueprint)
        bars = argparse.Namespace(tol=scripts.TOL, tol64=scripts.TOL64)
        for dtype in ("float64", "float32"):
            torch.manual_seed(0)  # as the references were made
            logits = run(checkpoint, reference.input(), dtype, reference.extras())
            row[dtype] = scripts.judge(reference, logits, bars, dtype)
    except UserError as mistake:
        row["missing"] = str(mistake)
    return row


def other_options(blueprint: dict) -> str:
    """Return the options of a blueprint that are not the builder's defaults, in words."""
    parameters = inspect.signature(get_builder(blueprint["name"])).parameters
    said = []
    for option, value in blueprint["options"].items():
        if option in ("bands", "num_classes", "backbone") or value == parameters[option].default:
            continue
        said.append(f"{option}={_short(option, value)}")
    return ", ".join(said)


def _short(option: str, value: object) -> str:
    if option == "aux_heads":
        return str(len(value))
    if isinstance(value, dict):
        said = [f"{key}={_short(key, part)}" for key, part in value.items() if part not in (None, False)]
        return "{" + ", ".join(said) + "}"
    if isinstance(value, (tuple, list)):
        return "/".join(_short("", part) for part in value)
    return str(value)


def line(row: dict) -> str:
    """Return a row of the table."""
    info, double, single = row["info"], row["float64"], row["float32"]
    count, bands, height, width = info["input"]
    cells = [
        row["name"],
        f"`{info['config']}`",
        f"{row['family']}, {row['backbone']}",
        f"{info['params'] / 1e6:.2f} M",
        f"{count} of {bands}x{height}x{width}",
        f"{double.get('max_rel', float('nan')):.1e}",
        f"{single.get('max_rel', float('nan')):.1e}",
        f"{single.get('noise', float('nan')):.1e}",
        "same" if agrees(row) else "**differs**",
    ]
    return f"| {' | '.join(cells)} |"


def agrees(row: dict) -> bool:
    """Return whether a row's network passed both bars."""
    return all(row[dtype]["verdict"] in ("ok", "exact") for dtype in ("float64", "float32"))


def page(rows: list[dict], scripts: ModuleType) -> str:
    """Return the text of docs/parity.md."""
    here = [row for row in rows if "missing" not in row]
    absent = [f"- {row['name']}: {row['missing'].split(';')[0]}" for row in rows if "missing" in row]
    text = PAGE.format(
        same=sum(map(agrees, here)),
        compared=len(here),
        reference_torch=", ".join(
            sorted({row["info"]["torch"].split("+")[0] for row in here if "torch" in row["info"]})
        ),
        tol=scripts.TOL,
        tol64=scripts.TOL64,
        date=time.strftime("%Y-%m-%d"),
        python=platform.python_version(),
        torch=str(torch.__version__).split("+")[0],
        timm=timm.__version__,
        table="\n".join(map(line, here)),
        options="\n".join(f"- **{row['name']}**: {row['options'] or 'none'}" for row in here),
    )
    return text + (ABSENT.format(reasons="\n".join(absent)) if absent else "")


def main(arguments: list[str] | None = None) -> int:
    """Compare, print a line per reference, write the table; 1 where a network differs."""
    flags = parse_arguments(arguments)
    if not flags.REFS.is_dir():
        raise UserError(f"--REFS {flags.REFS}: there is no such folder")
    weights = load_script(flags.REFS, "parity_weights.py")
    scripts = load_script(flags.REFS, "compare.py")
    names = sorted(path.name.removesuffix(".small.npz") for path in flags.REFS.glob("*.small.npz"))
    rows = []
    for name in (each for each in names if re.search(flags.ONLY, each)):
        start = time.monotonic()
        rows.append(compare(scripts, weights, flags.REFS, name))
        said = rows[-1].get("missing") or line(rows[-1]).rsplit("|", 2)[1].strip()
        print(f"{name}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
    flags.OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    flags.OUTPUT.write_text(page(rows, scripts), encoding="utf-8")
    here = [row for row in rows if "missing" not in row]
    print(f"{len(here)} compared, {len(rows) - len(here)} not here: {flags.OUTPUT}")
    return int(not all(map(agrees, here)))


if __name__ == "__main__":
    sys.exit(run_program(main))
