"""Layout of images and weights on the CPU: each network's time with channels last beside the usual one.

    python benchmarks/layout.py
    python benchmarks/layout.py --NETWORKS unet:resnet50 hrnet --SIDE 512

`utils.devices.place_for_prediction` rests on this table. Both take turns in one process; written are the
smallest times over all rounds from images to probabilities, and the largest difference of logits as part of
the largest logit. (It is large where rounding decides which of two equal maxima or uncertain points is taken:
SegNet and PointRend.) Rows are added to benchmarks/results/layout.csv.
"""

import argparse
import copy
import csv
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from nets import create_model, list_models  # noqa: E402
from utils.devices import place_for_prediction  # noqa: E402
from utils.inference.whole import layout_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "layout.csv"
COLUMNS = ("network", "side", "threads", "usual_seconds", "channels_last_seconds", "ratio", "difference")
BATCH = 2


def seconds(network: nn.Module, images: Tensor) -> float:
    """Return what one pass from images to probabilities takes."""
    started = time.perf_counter()
    network.probabilities(network(images))
    return time.perf_counter() - started


@torch.inference_mode()
def measure(name: str, side: int, rounds: int) -> list:
    """Return the cells of a network, `name` or `name:backbone`, with random weights."""
    torch.manual_seed(0)
    model, _, backbone = name.partition(":")
    chosen = {"backbone": backbone} if backbone else {}
    network = create_model(model, bands=3, num_classes=11, **chosen).eval()
    network.mean.fill_(50.0)
    network.std.fill_(29.0)
    changed_network = place_for_prediction(copy.deepcopy(network), torch.device("cpu"))
    images = 100 * torch.rand(BATCH, 3, side, side)
    last = images.contiguous(memory_format=layout_of(changed_network))
    expected, found = network(images)["logits"], changed_network(last)["logits"]
    difference = (expected - found).abs().max() / expected.abs().max()
    times = [(seconds(network, images), seconds(changed_network, last)) for _ in range(rounds)]
    usual, changed = (min(taken) for taken in zip(*times, strict=True))
    return [name, side, torch.get_num_threads(), f"{usual:.3f}", f"{changed:.3f}", f"{changed / usual:.2f}",
            f"{difference:.1e}"]  # fmt: skip


def main() -> None:
    """Measure the networks and add their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--NETWORKS", nargs="+", default=list_models(), help="name or name:backbone")
    parser.add_argument("--SIDE", type=int, default=384, help="of the square images, pixels")
    parser.add_argument("--THREADS", type=int, default=1, help="of PyTorch")
    parser.add_argument("--ROUNDS", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.THREADS)
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        for name in options.NETWORKS:
            cells = measure(name, options.SIDE, options.ROUNDS)
            writer.writerow(cells)
            file.flush()
            print(*cells, sep=",", flush=True)


if __name__ == "__main__":
    main()
