"""What the training loop itself costs: everything of a step but forward pass, loss, backward and optimiser.

That is reading and augmenting (or waiting for the processes that do), the copy to the device, checks, sums,
schedule, progress bar and the counting that saving needs. On a CPU the processor time of this process is
measured, which other work on the machine does not change.

    python benchmarks/loop_overhead.py --STEPS 4
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import RESULTS, add_row, scratch_folder, surroundings  # noqa: E402
from utils.inference.writing import write_png  # noqa: E402
from utils.options import train_options  # noqa: E402
from utils.training.engine import train_one_epoch  # noqa: E402
from utils.training.opening import open_session  # noqa: E402
from utils.training.session import Session  # noqa: E402


class Stopwatch:
    """Adds up the time between `start` and `stop`; both can be hooks."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self._began = device, 0.0, 0.0

    def now(self) -> float:
        """Return the time: the processor's on a CPU, the clock's after all work is done on a GPU."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, *_: object) -> None:
        """Begin to count."""
        self._began = self.now()

    def stop(self, *_: object) -> None:
        """Stop counting."""
        self.seconds += self.now() - self._began


def main() -> None:
    """Train a few steps, measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--STEPS", type=int, default=4, help="measured steps, after one that is not")
    parser.add_argument("--NUM_WORKERS", type=int, default=1, help="processes that read")
    parser.add_argument("--BACKBONE_TYPE", default="resnet34")
    options = parser.parse_args()
    with scratch_folder():
        write_tiles(Path("data"))
        words = ["--DATASET_PATH", "data", "--BACKBONE_TYPE", options.BACKBONE_TYPE, "--BATCH_SIZE", "8"]
        words += ["--CROP_SIZE", "256", "--NUM_WORKERS", str(options.NUM_WORKERS)]
        session = open_session(train_options([*words, "--MAX_ITERS", str(options.STEPS + 1)]))
        whole, work = measure(session, options.STEPS)
    row = {
        "network": f"unet {options.BACKBONE_TYPE}",
        "batch": "8 x 256x256",
        "workers": options.NUM_WORKERS,
        "steps": options.STEPS,
        "seconds_per_step": f"{whole / options.STEPS:.3f}",
        "overhead_ms": f"{1000 * (whole - work) / options.STEPS:.1f}",
        "overhead_percent": f"{100 * (whole - work) / whole:.2f}",
        **surroundings(session.device),
    }
    print(row)
    add_row(RESULTS / "loop_overhead.csv", row, ["network", "workers", "device"])


def write_tiles(root: Path, side: int = 256) -> None:
    """Write eight training tiles and one of validation: colours in noise, two classes."""
    for name in ("images", "labels", "annotations"):
        (root / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [f"tile{index}" for index in range(9)]
    for name in names:
        coarse = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        write_png(root / "images" / f"{name}.png", picture)
        write_png(
            root / "labels" / f"{name}.png",
            Image.fromarray((np.asarray(picture)[..., 0] > 127) * np.uint8(1)),
        )
    (root / "annotations" / "train.txt").write_text("\n".join(names[:8]), encoding="utf-8")
    (root / "annotations" / "val.txt").write_text(names[8], encoding="utf-8")


def measure(session: Session, steps: int) -> tuple[float, float]:
    """Return the seconds of some steps, and those of forward pass, loss, backward and optimiser alone."""
    train_one_epoch(session, 1)
    work, whole = Stopwatch(session.device), Stopwatch(session.device)
    for module in (session.model, session.criterion):
        module.register_forward_pre_hook(work.start)
        module.register_forward_hook(work.stop)
    session.optimizer.register_step_pre_hook(work.start)
    session.optimizer.register_step_post_hook(work.stop)
    backward = torch.Tensor.backward

    def timed(tensor: torch.Tensor, *args: object, **more: object) -> None:
        work.start()
        backward(tensor, *args, **more)
        work.stop()

    torch.Tensor.backward = timed
    try:
        whole.start()
        train_one_epoch(session, steps)
        whole.stop()
    finally:
        torch.Tensor.backward = backward
    return whole.seconds, work.seconds


if __name__ == "__main__":
    main()
