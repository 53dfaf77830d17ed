"""The whole path in one command: data set, training, evaluation, prediction of a scene.

    python tools/demo.py [DATASET_PATH] [flags of train.py]

Without a path the synthetic glacier set is made in datasets/demo first. Each step is a command that is
printed before it runs, so that it can be repeated by hand.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.program import run_program  # noqa: E402

DEMO = Path("datasets/demo")
# Enough to learn the demo set in about two minutes on two CPU cores; flags that are given come later and win.
TRAIN = ["--BACKBONE_TYPE", "resnet18", "--BATCH_SIZE", "8", "--EPOCHS", "20", "--MODEL_SAVE_EPOCHS", "20"]
# Of the demo set's U-Net: 160 steps are few for the rate of its plain recipe.
RATE = ["--INIT_LR", "1e-3"]


def step(*command: str | Path) -> None:
    """Run a program of the project and stop if it fails."""
    words = [str(word) for word in command]
    print(f"\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], check=False).returncode
    if code:
        sys.exit(code)


def scene_of(dataset: Path, split: str) -> Path:
    """Return the large scene of a data set, or else the first image of a split."""
    from utils.data.layouts import Request, find_layout

    scene = dataset / "scene" / "scene.tif"
    if scene.is_file():
        return scene
    splits = find_layout(Request(dataset)).splits
    return splits.get(split, splits["train"])[0].image


def main(argv: list[str] | None = None) -> None:
    """Run all steps and say where the results are."""
    words = sys.argv[1:] if argv is None else argv
    dataset = Path(words.pop(0)) if words and not words[0].startswith("--") else DEMO
    started = time.monotonic()
    if dataset == DEMO and not (DEMO / "annotations" / "train.txt").is_file():
        step("tools/make_demo_dataset.py", "--OUTPUT", DEMO)
    if not dataset.is_dir():
        raise UserError(f"{dataset} does not exist; give a folder with annotations/, images/ and labels/")
    from utils.training.runs import new_run

    run = new_run(None, "demo")
    best, output = run / "best.pth", Path("output") / run.name
    split = "test" if (dataset / "annotations" / "test.txt").is_file() else "val"
    rate = RATE if dataset == DEMO and "--MODEL_TYPE" not in words else []
    step("train.py", "--DATASET_PATH", dataset, "--RUN_NAME", run.name, *TRAIN, *rate, *words)
    step("evaluate.py", "--WEIGHTS", best, "--DATASET_PATH", dataset, "--SPLIT", split)
    scene = scene_of(dataset, split)
    step("predict_large.py", "--WEIGHTS", best, "--INPUT", scene, "--OUTPUT", output)
    results = {
        "log (CSV)": next(run.glob("*_training_log.csv")),
        "curves": run / "curves.png",
        "checkpoint": best,
        "evaluation": run / f"evaluation_{split}",
        "map": output / f"{scene.stem}.tif",
        "overlay": output / f"{scene.stem}_overlay.png",
    }
    print(f"\nDone in {time.monotonic() - started:.0f} s. Look at:")
    for name, path in results.items():
        print(f"  {name:<11} {path}")


if __name__ == "__main__":
    sys.exit(run_program(main))
