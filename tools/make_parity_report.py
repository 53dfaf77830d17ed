"""Hold our networks against reference logits of MMSegmentation and write the table docs/parity.md.

`python tools/make_parity_report.py --REFS PATH` needs the folder of references with the scripts `compare.py`
and `parity_weights.py` that come with them, in that folder or in the one above. The bars are `compare.py`'s.
"""

import argparse
import importlib.util
import inspect
import re
import sys
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch  # noqa: E402

from nets.errors import UserError  # noqa: E402
from nets.importers.openmmlab import read_openmmlab  # noqa: E402
from nets.registry import get_builder  # noqa: E402
from tools.parity_runner import run  # noqa: E402
from utils.program import run_program  # noqa: E402

HEADER = """# Parity with MMSegmentation

Made by `python tools/make_parity_report.py --REFS PATH`. Each row loads a checkpoint as OpenMMLab
publishes it, from its file alone, and compares the logits with those of MMSegmentation 1.2.2. Differences
are the largest absolute difference divided by the standard deviation of the reference's logits. In double
precision the bar is {tol64:g}; in single precision it is {tol:g} or five times the reference's own rounding
noise, whichever is more.

| Reference | Family | Options other than the default | Parameters | float64 | float32 | Noise | Verdict |
|---|---|---|---|---|---|---|---|
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
    row = {"name": name, "parameters": reference.info["params"]}
    try:
        blueprint = read_openmmlab(checkpoint).blueprint
        row |= {"family": blueprint["name"], "options": other_options(blueprint)}
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
        if option in ("bands", "num_classes") or value == parameters[option].default:
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
    double, single = row["float64"], row["float32"]
    passed = all(each["verdict"] in ("ok", "exact") for each in (double, single))
    cells = [
        row["name"],
        row["family"],
        row["options"],
        f"{row['parameters'] / 1e6:.2f} M",
        f"{double.get('max_rel', float('nan')):.1e}",
        f"{single.get('max_rel', float('nan')):.1e}",
        f"{single.get('noise', float('nan')):.1e}",
        "same" if passed else "**differs**",
    ]
    return f"| {' | '.join(cells)} |"


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
    here = [row for row in rows if "missing" not in row]
    text = HEADER.format(tol=scripts.TOL, tol64=scripts.TOL64) + "\n".join(map(line, here)) + "\n"
    absent = [row["name"] for row in rows if "missing" in row]
    if absent:
        text += f"\nReferences whose networks are not here: {', '.join(absent)}.\n"
    flags.OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    flags.OUTPUT.write_text(text, encoding="utf-8")
    print(f"{len(here)} compared, {len(absent)} not here: {flags.OUTPUT}")
    return int(any("differs" in line(row) for row in here))


if __name__ == "__main__":
    sys.exit(run_program(main))
