"""Make a small synthetic data set: ten-band satellite tiles of glaciers in three classes, and a larger scene.

`python tools/make_demo_dataset.py` writes `datasets/demo/` in the layout that `train.py` reads. Clean ice is
told by its spectrum; debris-covered ice has the spectrum of the rock around it and is told by where it lies,
its outline and its texture, so that a network has to look at more than one pixel. The tiles of the three
splits and the larger scene come from separately seeded landscapes: no two overlap.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402

MARKER = "demo.json"  # says that this program made the folder, and lists its files
BY_OTHERS = (".aux.xml", ".DS_Store", "Thumbs.db", "desktop.ini")  # viewers leave these behind
SPLITS = ("train", "val", "test")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description="Make a synthetic ten-band data set of glaciers: clean ice, debris-covered ice, rock.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--OUTPUT", type=Path, default=Path("datasets/demo"), help="folder to make")
    parser.add_argument("--SEED", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument(
        "--TILE", type=int, default=128, help="side of a tile, pixels; a multiple of 16, 32 to 512"
    )
    parser.add_argument("--TRAIN_TILES", type=int, default=64, help="tiles to train on")
    parser.add_argument("--VAL_TILES", type=int, default=16, help="tiles to validate on")
    parser.add_argument("--TEST_TILES", type=int, default=16, help="tiles to test on")
    parser.add_argument(
        "--SCENE_SIZE",
        default="768,1024",
        help="H,W of the larger scene, pixels; multiples of 16, 256 to 4096",
    )
    return parser.parse_args(arguments)


def check_arguments(flags: argparse.Namespace) -> tuple[int, int]:
    """Return the scene's (rows, columns); raise UserError for a value that is not possible."""
    if flags.SEED < 0:
        raise UserError(f"--SEED {flags.SEED}: give a whole number from 0")
    if flags.TILE % 16 or not 32 <= flags.TILE <= 512:
        raise UserError(f"--TILE {flags.TILE}: give a multiple of 16 from 32 to 512, such as 128")
    for split in SPLITS:
        name = f"{split.upper()}_TILES"
        if not 1 <= getattr(flags, name) <= 1000:
            raise UserError(f"--{name} {getattr(flags, name)}: give a number from 1 to 1000")
    parts = [int(part) if part.strip().isdecimal() else 0 for part in flags.SCENE_SIZE.split(",")]
    if len(parts) != 2 or any(part % 16 or not 256 <= part <= 4096 for part in parts):
        raise UserError(f"--SCENE_SIZE {flags.SCENE_SIZE}: give H,W in multiples of 16 from 256 to 4096")
    return parts[0], parts[1]


def check_folder(folder: Path) -> None:
    """Raise UserError if the folder holds anything that this program did not write."""
    advice = "choose another --OUTPUT, or move that away"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--OUTPUT {folder} is a file; {advice}")
    marker = folder / MARKER
    found = [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]
    if not found:
        return
    try:
        ours = set(json.loads(marker.read_text(encoding="utf-8"))["files"]) | {MARKER}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--OUTPUT {folder} is not empty and was not made by this program; {advice}"
        ) from None
    for path in found:
        name = path.relative_to(folder).as_posix()
        if name not in ours and not name.endswith(BY_OTHERS):
            raise UserError(f"--OUTPUT {folder} holds {name}, which this program did not write; {advice}")


def _replace(part: Path, folder: Path) -> None:
    """Put the finished folder in the place of an earlier one."""
    earlier = folder.with_name(folder.name + ".old.part")
    check_folder(earlier)
    if earlier.exists():  # an interrupted run left it
        shutil.rmtree(earlier)
    if folder.exists():
        folder.rename(earlier)
    part.rename(folder)
    if earlier.exists():
        shutil.rmtree(earlier)


def make_dataset(flags: argparse.Namespace) -> None:
    """Write the whole data set, or nothing: it takes its name only when it is complete."""
    shape = check_arguments(flags)
    folder = flags.OUTPUT.resolve()
    part = folder.with_name(folder.name + ".part")
    check_folder(folder)
    check_folder(part)
    if part.exists():
        shutil.rmtree(part)
    try:
        for name in ("annotations", "images", "labels", "scene"):
            (part / name).mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"--OUTPUT {flags.OUTPUT} cannot be made ({error.strerror}); choose another"
        ) from None
    try:
        pixels = _write_all(part, flags, shape)
        _replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _report(flags.OUTPUT, folder, pixels)


def _write_all(part: Path, flags: argparse.Namespace, shape: tuple[int, int]) -> dict:
    """Write every file, the list of them last; return the pixels per label value of every part."""
    from tools.demo_scene import BANDS, CLASSES, IGNORE, PALETTE
    from tools.demo_tiles import write_scene, write_tiles

    counts = {split: getattr(flags, f"{split.upper()}_TILES") for split in SPLITS}
    pixels = write_tiles(part, flags.SEED, flags.TILE, counts)
    pixels["scene"] = write_scene(part / "scene", flags.SEED, shape)
    classes = {
        "dataset": "demo",
        "num_classes": len(CLASSES),
        "ignore_index": IGNORE,
        "names": list(CLASSES),
        "palette": [list(color) for color in PALETTE],
        "bands": list(BANDS),
        "dtype": "uint16",
        "scale": "top-of-atmosphere reflectance x 10000, 0 = no data (synthetic)",
    }
    _write_json(part / "classes.json", classes)
    files = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
    settings = {name: value for name, value in vars(flags).items() if name != "OUTPUT"}
    _write_json(
        part / MARKER, {"made_by": "tools/make_demo_dataset.py", "settings": settings, "files": files}
    )
    return pixels


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def _report(shown: Path, folder: Path, pixels: dict) -> None:
    """Print what was written: tiles and class shares of each part, and the size on disk."""
    from tools.demo_scene import CLASSES

    print(f"{'':8}{'images':>8}" + "".join(f"{name:>20}" for name in CLASSES) + f"{'ignored':>10}")
    for part, counts in pixels.items():
        listed = folder / "annotations" / f"{part}.txt"
        images = len(listed.read_text(encoding="utf-8").split()) if listed.exists() else 1
        seen = counts[: len(CLASSES)]
        shares = "".join(f"{share:>20.1%}" for share in seen / seen.sum())
        print(f"{part:8}{images:>8}{shares}{1 - seen.sum() / counts.sum():>10.1%}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{shown}: {size / 1e6:.1f} MB")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    try:
        make_dataset(parse_arguments(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
